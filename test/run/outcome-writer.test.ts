import { afterEach, beforeEach, expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import type { Row } from '../../src/producer/row-reader.js';
import { PayBudget } from '../../src/run/budget.js';
import { Ledger } from '../../src/run/ledger.js';
import { OutcomeWriter } from '../../src/run/outcome-writer.js';
import { FailingManifest, RunControl } from '../../src/run/run-control.js';
import { RowDecisions } from '../../src/run/row-decisions.js';
import type { ErrorCode, ResultJobData } from '../../src/shared/jobs.js';
import type { SharedStore } from '../../src/shared/queue/store.js';
import { forgetLostSubmits, keepLostSubmits, readLostSubmits } from '../../src/shared/run-counts.js';
import { OutputIndex } from '../../src/writer/output-index.js';
import { FailuresFile } from '../../src/writer/failures.js';
import { OutputFile } from '../../src/writer/output-file.js';
import { describeOnRedis } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';
import { PROMPT_COLUMNS } from '../../src/shared/jobs.js';

const RUN = 'r12345678901';
const url = (name: string) => `http://h.test/${name}`;
const row = (number: number, name: string): Row => ({
  number,
  line: number + 1,
  cells: [String(number), url(name)],
  url: url(name),
  image: imageHash(url(name)),
});

function described(name: string, calls = { submits: 1, polls: 2 }): ResultJobData {
  const at = '2026-01-02T03:04:05.678Z';
  const outcome = {
    status: 'described',
    prompts: ['a', 'b', 'c', 'd'],
    messageId: `m-${name}`,
    describedAt: at,
  } as const;
  return { image: imageHash(url(name)), outcome, ...calls, maybePaid: 0 };
}

function failed(name: string, code: ErrorCode = 'http'): ResultJobData {
  const outcome = { status: 'failed', code, reason: 'why', attempts: 5 } as const;
  return { image: imageHash(url(name)), outcome, submits: 5, polls: 0, maybePaid: 1 };
}

describeOnRedis('outcomes on their way to the disk', (openFixture) => {
  let workspace: Workspace;
  let output: OutputFile;
  let failures: FailuresFile;
  let ledger: Ledger;
  let onFile: OutputIndex;
  let writer: OutcomeWriter;
  let control: RunControl;
  let store: SharedStore;

  beforeEach(async () => {
    ({ store } = await (await openFixture()).connect());
    workspace = await Workspace.create();
    await open();
  });
  afterEach(async () => {
    await output.close();
    await failures.close();
    await workspace.remove();
  });

  async function open(): Promise<void> {
    const options = {
      columns: ['id', 'image'],
      delimiter: ',',
      urlColumn: { index: 1, path: [] },
      answerColumns: PROMPT_COLUMNS,
    };
    onFile = new OutputIndex({ keyed: false });
    output = await OutputFile.open({
      ...options,
      index: onFile,
      path: workspace.at('out.csv'),
    });
    failures = await FailuresFile.open({ ...options, path: workspace.at('out.failed.csv') });
    control = new RunControl(undefined);
    ledger = new Ledger(new PayBudget(Infinity));
    onFile.startPass();
    const { maybePaidTwice, byImage } = await readLostSubmits(store, RUN);
    ledger.counts.maybePaidTwice = maybePaidTwice;
    ledger.lost = byImage;
    writer = new OutcomeWriter({
      ledger,
      onFile,
      output,
      earlier: undefined,
      failures,
      control,
      failing: new FailingManifest(50),
      keepLostSubmits: (counts, counted) => keepLostSubmits(store, RUN, counts, counted),
    });
  }

  /** The row's image is submitted, or waited for. */
  function take(taken: Row, isReattached = false): void {
    writer.takeOn(taken.image ?? '', taken, isReattached);
  }

  const ids = async () => (await workspace.records('out.csv')).map((record) => record['id']);
  const failedIds = async () =>
    (await workspace.records('out.failed.csv.partial')).map((record) => record['id']);
  const idle = () => ledger.waitUntil(() => ledger.rows === 0, AbortSignal.timeout(5000));
  const known = () =>
    new RowDecisions({ ledger, onFile, failures, failedBefore: new Map(), retriesAll: false });

  test('acknowledges a result when all rows of its image are on disk, and counts them', async () => {
    take(row(1, 'a'));
    ledger.attach(imageHash(url('a')), row(2, 'a'));
    expect(await writer.settle(described('a'))).toBe('done');
    expect(await ids()).toEqual(['1', '2']);
    expect(ledger.counts).toMatchObject({ described: 1, copied: 1, submits: 1, polls: 2 });
    expect(ledger.rows).toBe(0);
  });

  test('copies for rows that come while their image goes to disk; nobody submits it again', async () => {
    take(row(1, 'a'));
    const settled = writer.settle(described('a'));
    expect(known().decideImage(row(2, 'a')).action).toBe('attach');
    ledger.attach(imageHash(url('a')), row(2, 'a'));
    expect(await settled).toBe('done');
    expect(ledger.rows > 0).toBe(true);
    expect(known().decideImage(row(3, 'a')).action).toBe('copy');
    await writer.flushed();
    await idle();
    expect(await ids()).toEqual(['1', '2']);
    expect(ledger.counts).toMatchObject({ described: 1, copied: 1 });
  });

  test('a row that comes when its image is on disk and not settled yet follows those that came before', async () => {
    take(row(1, 'a'));
    const addAppended = onFile.addAppended.bind(onFile);
    const actions: string[] = [];
    onFile.addAppended = (appended) => {
      addAppended(appended);
      actions.push(known().decideImage(row(3, 'a')).action);
    };
    const settled = writer.settle(described('a'));
    ledger.attach(imageHash(url('a')), row(2, 'a'));
    await settled;
    await writer.flushed();
    expect(actions).toEqual(['attach', 'copy']);
  });

  test('copies reach the file in the order of the manifest, whichever is read first', async () => {
    take(row(1, 'a'));
    await writer.settle(described('a'));
    const read = output.readDescribed.bind(output);
    let reads = 0;
    let release: (() => void) | undefined;
    const lastIsRead = new Promise<void>((resolve) => (release = resolve));
    output.readDescribed = async (offset) => {
      const number = ++reads;
      if (number === 1) await lastIsRead;
      const found = await read(offset);
      if (number === 3) release?.();
      return found;
    };
    for (const number of [2, 3, 4]) writer.writeCopy(row(number, 'a'), imageHash(url('a')));
    await writer.flushed();
    expect(await ids()).toEqual(['1', '2', '3', '4']);
    expect(ledger.counts).toMatchObject({ described: 1, copied: 3 });
    expect(ledger.rows).toBe(0);
  });

  test('an image that cannot be read for a copy ends the run, and counts nothing', async () => {
    take(row(1, 'a'));
    await writer.settle(described('a'));
    writer.writeCopy(row(2, 'a'), imageHash(url('unknown')));
    writer.writeCopy(row(3, 'a'), imageHash(url('a')));
    await writer.flushed();
    expect(control.reason).toMatchObject({ kind: 'fatal' });
    expect(await ids()).toEqual(['1']);
    expect([ledger.counts.copied, ledger.rows]).toEqual([0, 2]);
  });

  test('fails rows that come while the failure of their image goes to disk', async () => {
    take(row(1, 'a'));
    const settled = writer.settle(failed('a'));
    ledger.attach(imageHash(url('a')), row(2, 'a'));
    await settled;
    expect(known().decideImage(row(3, 'a'))).toMatchObject({ action: 'fail', outcome: { code: 'http' } });
    await idle();
    expect((await failedIds()).sort()).toEqual(['1', '2']);
    expect([...ledger.counts.failedByCode]).toEqual([['http', 2]]);
    expect(ledger.counts.maybePaidTwice).toBe(1);
  });

  test('drops a second result of an image, while the first is written and after', async () => {
    take(row(1, 'a'));
    const both = [writer.settle(described('a')), writer.settle(described('a'))];
    expect(await Promise.all(both)).toEqual(['done', 'done']);
    expect(await writer.settle(failed('a'))).toBe('done');
    expect(await ids()).toEqual(['1']);
    expect(ledger.counts).toMatchObject({ described: 1, submits: 1 });
  });

  test('writes prompts that follow a failure in its place, with the rows that failed with it', async () => {
    take(row(1, 'a'));
    ledger.attach(imageHash(url('a')), row(2, 'a'));
    const first = writer.settle(failed('a'));
    const second = writer.settle(described('a', { submits: 7, polls: 3 }));
    expect(await Promise.all([first, second])).toEqual(['done', 'done']);
    expect(await ids()).toEqual(['1', '2']);
    expect(ledger.counts).toMatchObject({ described: 1, copied: 1, submits: 7, polls: 3 });
    expect(ledger.counts.failedByCode.size).toBe(0);
    expect(ledger.rows > 0).toBe(false);
    expect(known().decideImage(row(3, 'a'))).toMatchObject({ action: 'copy' });
  });

  test('keeps prompts that follow a failure when the run is over, for the next start', async () => {
    take(row(1, 'a'));
    expect(await writer.settle(failed('a'))).toBe('done');
    ledger.end(true, (image) => onFile.hasImage(image));
    expect(await writer.settle(described('a'))).toBe('put-back');
    expect(await failedIds()).toEqual(['1']);
    expect(await ids()).toEqual([]);
  });

  test('keeps the prompts of an image that failed long ago for the next start', async () => {
    const names = Array.from({ length: 1001 }, (_, index) => `image${index}`);
    for (const [index, name] of names.entries()) {
      take(row(index + 1, name));
      await writer.settle(failed(name));
    }
    expect(await writer.settle(described('image1000'))).toBe('done');
    const held = writer.settle(described('image0'));
    ledger.end(true, (image) => onFile.hasImage(image));
    expect(await held).toBe('put-back');
    expect(await ids()).toEqual(['1001']);
  });

  test('holds a result whose row is still to come, unacknowledged', async () => {
    let disposal: string | undefined;
    const held = writer.settle(described('a')).then((end) => (disposal = end));
    ledger.begin();
    await writer.flushed();
    expect([ledger.isAnswered(imageHash(url('a'))), disposal]).toEqual([true, undefined]);
    take(row(1, 'a'), true);
    expect(await held).toBe('done');
    expect(await ids()).toEqual(['1']);
    // Its calls were made before this run.
    expect(ledger.counts).toMatchObject({ described: 1, submits: 0, polls: 0 });
  });

  test('counts the calls of this run for a result that came during it, before its row', async () => {
    ledger.find(imageHash(url('a')), { state: 'waiting', submits: 1, polls: 4 });
    ledger.begin();
    const held = writer.settle(described('a', { submits: 3, polls: 9 }));
    take(row(1, 'a'), true);
    expect(await held).toBe('done');
    expect(ledger.counts).toMatchObject({ submits: 2, polls: 5 });
  });

  test('makes a result again from a completed job whose row was lost since', async () => {
    const result = described('a', { submits: 1, polls: 4 });
    ledger.find(imageHash(url('a')), { state: 'paid', submits: 1, polls: 4, result });
    take(row(1, 'a'), true);
    await idle();
    expect(await ids()).toEqual(['1']);
    expect(ledger.counts).toMatchObject({ described: 1, submits: 0, polls: 0 });
  });

  test.each([
    ['prompts, then a failure', ['described', 'failed']],
    ['a failure, then prompts', ['failed', 'described']],
  ])('of two results that come before their row prompts count: %s', async (_order, kinds) => {
    const held = kinds.map((kind) => writer.settle(kind === 'described' ? described('a') : failed('a')));
    ledger.begin();
    take(row(1, 'a'), true);
    expect(await Promise.all(held)).toEqual(['done', 'done']);
    expect(await ids()).toEqual(['1']);
    expect([...ledger.counts.failedByCode]).toEqual([]);
  });

  test('tries a failure from before the run again; it is acknowledged when the image is taken on', async () => {
    const held = writer.settle(failed('a', 'deadline'));
    ledger.find(imageHash(url('a')), { state: 'failed', submits: 5, polls: 0 });
    ledger.begin();
    expect(ledger.isAnswered(imageHash(url('a')))).toBe(false);
    expect(known().decideImage(row(1, 'a'))).toMatchObject({
      action: 'submit',
      previous: { outcome: { code: 'deadline' } },
    });
    take(row(1, 'a'));
    expect(await held).toBe('done');
    expect(ledger.pending().length).toBe(1);
    expect(await writer.settle(described('a'))).toBe('done');
    expect(await ids()).toEqual(['1']);
  });

  test('does not try a permanent failure from before the run again', () => {
    void writer.settle(failed('a', 'rejected'));
    ledger.begin();
    expect(known().decideImage(row(1, 'a'))).toMatchObject({
      action: 'fail',
      outcome: { code: 'rejected' },
    });
  });

  test('does not try again what has failed in this run before its row came', async () => {
    ledger.find(imageHash(url('a')), { state: 'paid', submits: 0, polls: 0 });
    ledger.begin();
    const held = writer.settle(failed('a'));
    expect(ledger.isAnswered(imageHash(url('a')))).toBe(true);
    take(row(1, 'a'), true);
    expect(await held).toBe('done');
    expect(await failedIds()).toEqual(['1']);
    expect(ledger.counts).toMatchObject({ submits: 5 });
  });

  test.each([
    ['whose manifest was read to its end, failures are dropped', true, 'done'],
    ['that was stopped, failures stay as well', false, 'put-back'],
  ])('at the end of a run %s; prompts stay in the queue', async (_how, isWhole, ofFailure) => {
    const held = [writer.settle(described('a')), writer.settle(failed('b'))];
    ledger.end(isWhole, (image) => onFile.hasImage(image));
    expect(await Promise.all(held)).toEqual(['put-back', ofFailure]);
    // One that comes even later is not held any more: the run could not end.
    expect(await writer.settle(described('c'))).toBe('put-back');
  });

  test('counts lost submits once, though its process was killed before the row was on disk', async () => {
    const result = { ...described('a'), maybePaid: 2 };
    take(row(1, 'a'));
    await output.close();
    expect(await writer.settle(result)).toBe('put-back');
    await failures.close();

    await open();
    const again = writer.settle(result);
    ledger.begin();
    take(row(1, 'a'), true);
    expect(await again).toBe('done');
    expect(ledger.counts.maybePaidTwice).toBe(2);

    await forgetLostSubmits(store, RUN);
    expect(await readLostSubmits(store, RUN)).toEqual({ maybePaidTwice: 0, rescued: 0, byImage: new Map() });
  });

  test('counts what only the second result of an image knows: its first worker has lost the job, and paid', async () => {
    take(row(1, 'a'));
    take(row(2, 'b'));
    const lost = { ...described('b'), maybePaid: 1 };
    expect(await writer.settle(described('a'))).toBe('done');
    expect(await writer.settle(lost)).toBe('done');
    expect(await writer.settle({ ...described('a'), maybePaid: 1 })).toBe('done');
    // The same worker has published it twice.
    expect(await writer.settle(lost)).toBe('done');
    expect(ledger.counts.maybePaidTwice).toBe(2);
    expect(await ids()).toEqual(['1', '2']);
    expect((await readLostSubmits(store, RUN)).maybePaidTwice).toBe(2);
  });

  test('counts the lost submits of a new job of an image whose earlier ones are counted', async () => {
    ledger.lost = new Map([[imageHash(url('a')), 2]]);
    ledger.find(imageHash(url('a')), { state: 'failed', submits: 2, polls: 0 });
    ledger.begin();
    take(row(1, 'a'));
    expect(await writer.settle({ ...described('a'), maybePaid: 1 })).toBe('done');
    expect(ledger.counts.maybePaidTwice).toBe(1);
  });

  test('puts a result back when the disk does not take its rows, and says so', async () => {
    take(row(1, 'a'));
    take(row(2, 'b'));
    await output.close();
    expect(await writer.settle(described('a'))).toBe('put-back');
    expect(await writer.settle(failed('b'))).toBe('put-back');
    expect(control.reason).toMatchObject({ kind: 'fatal' });
    expect(ledger.rows > 0).toBe(true);
    expect([ledger.counts.described, ledger.counts.failedByCode.size]).toEqual([0, 0]);
  });
});
