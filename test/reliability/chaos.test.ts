import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { abandonAll } from '../../bench/chaos/abandon.js';
import { countPayments } from '../../bench/chaos/count-payments.js';
import { countRows } from '../../bench/chaos/count-rows.js';
import { Ledger } from '../../bench/chaos/ledger.js';
import type { QueueKind } from '../../bench/chaos/plan.js';
import type { PlannedRow } from '../../bench/chaos/plan-rows.js';
import { runRounds } from '../../bench/chaos/rounds.js';
import { formatMessageId, hashUrl } from '../../src/simulator/messages.js';
import { embeddedFixture } from '../helpers/queues.js';
import { redisAvailable } from '../helpers/redis.js';
import { Workspace } from '../helpers/workspace.js';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

// A short form of `npm run chaos`, which draws other rounds each time. The seeds are such that processes are killed.
describe('whatever is killed and whatever fails', () => {
  afterAll(abandonAll);

  async function expectAsPromised(
    queue: QueueKind,
    options: { seed: number; rounds: number; emptyQueue?: string },
  ) {
    const results = await runRounds({
      ...options,
      queues: [queue],
      atOnce: 3,
      cli: CLI,
      onRound: () => undefined,
    });
    expect(results.flatMap(({ broken, folder }) => broken.map((line) => `${folder}: ${line}`))).toEqual([]);
    expect(results.reduce((sum, { kills }) => sum + kills, 0)).toBeGreaterThan(0);
    expect(Math.min(...results.map(({ rows }) => rows.described))).toBeGreaterThan(0);
  }

  test.skipIf(!redisAvailable)(
    'no row is lost or there twice, and what may be paid twice is counted (Redis)',
    async () => {
      await expectAsPromised('redis', { seed: 5, rounds: 3 });
    },
    150_000,
  );

  test('no row is lost or there twice, and what may be paid twice is counted (embedded)', async () => {
    const empty = await embeddedFixture();
    onTestFinished(() => empty.cleanup());
    const emptyQueue = empty.url.slice('embedded:'.length);
    await expectAsPromised('embedded', { seed: 28, rounds: 1, emptyQueue });
  }, 150_000);
});

describe('the count of payments', () => {
  const messageId = (url: string, fate: 'completes' | 'expires', nonce: string) =>
    formatMessageId({ submittedAt: 1, latencyMs: 1, fate, urlHash: hashUrl(url), nonce, ref: '' });
  const submit = (url: string, fate: 'completes' | 'expires', nonce: string) => {
    return { time: 1, url, messageId: messageId(url, fate, nonce) };
  };

  test('takes a submit after an expired message for no second payment', () => {
    const journal = [submit('http://h.test/1', 'expires', 'a'), submit('http://h.test/1', 'completes', 'b')];
    expect(countPayments(journal, new Ledger())).toMatchObject({
      paid: 2,
      expired: 1,
      paidTwice: 0,
      uncounted: [],
    });
  });

  test('names an image that was paid twice more often than its own jobs count', () => {
    const [one, two] = ['http://h.test/1', 'http://h.test/2'] as const;
    const journal = ['a', 'b', 'c'].map((nonce) => submit(one, 'completes', nonce));
    const ledger = new Ledger();
    ledger.note([{ name: '2@1', url: two, maybePaid: 5 }]);
    ledger.note([{ name: '1@1', url: one, maybePaid: 1 }]);
    expect(countPayments(journal, ledger)).toMatchObject({ paidTwice: 2, counted: 6, uncounted: [one] });
    // The same job again counts once, at its highest; another job of the image counts beside it.
    ledger.note([{ name: '1@1', url: one, maybePaid: 1 }]);
    ledger.note([{ name: '1@9', url: one, maybePaid: 1 }]);
    expect(countPayments(journal, ledger)).toMatchObject({ counted: 7, uncounted: [] });
  });
});

describe('the count of rows', () => {
  let workspace: Workspace;
  beforeEach(async () => {
    workspace = await Workspace.create();
  });
  afterEach(() => workspace.remove());

  const planned = (number: number, problem?: 'invalid-url'): PlannedRow => {
    const url = problem === undefined ? `http://h.test/${number}` : '';
    return { number: `${number}`, key: `k${number}`, title: 't', url, image: url || undefined, problem };
  };

  test('names rows that are missing, failed without need, there twice, or with the prompts of another', async () => {
    const describedAs = (number: number, of: number) => {
      const facts = { submittedAt: 1, latencyMs: 1, fate: 'completes', nonce: 'a', ref: '' } as const;
      const id = formatMessageId({ ...facts, urlHash: hashUrl(`http://h.test/${of}`) });
      return `${number},k${number},t,http://h.test/${number},prompt,${id}\n`;
    };
    const output = await workspace.write(
      'out.csv',
      `number,key,title,image,prompt_1,message_id\n${describedAs(1, 1)}${describedAs(1, 1)}${describedAs(2, 3)}`,
    );
    const failures = await workspace.write(
      'out.failed.csv',
      'number,key,title,image,error_code\n4,k4,t,,invalid-url\n5,k5,t,http://h.test/5,lost\n' +
        '6,k6,t,http://h.test/6,rejected\n7,k7,t,http://h.test/7,rejected\n',
    );
    const rows = [1, 2, 3].map((number) => planned(number)).concat(planned(4, 'invalid-url'));
    rows.push(planned(5), planned(6), planned(7));
    const counts = countRows(rows, { output, failures }, (url) => url === 'http://h.test/7');
    expect(counts).toEqual({
      described: 3,
      failed: 4,
      lost: ['2', '3', '5', '7'],
      twice: ['1'],
      wrong: ['2'],
    });
  });
});
