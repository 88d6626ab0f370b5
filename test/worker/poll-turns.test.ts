import { expect, onTestFinished, test } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import { silentLogger } from '../../src/shared/log.js';
import { RateLimiter } from '../../src/shared/queue/limiter.js';
import { PollTurns } from '../../src/worker/message-polls.js';
import { WorkerMetrics } from '../../src/worker/worker-metrics.js';
import { answering, serve } from '../describe-api/http-server.js';

const working = (id: string) => ({ id, status: 'IN_PROGRESS', progress: '5%' });

/** The turns of a worker at a server that answers each call alike. */
async function turnsAt(
  status: number,
  body: unknown,
  take = () => Promise.resolve({ dueInMs: [0], nextInMs: 0 }),
) {
  const server = await serve(answering(status, body));
  const client = new DescribeClient({ baseUrl: server.url, dialect: 'mj' });
  onTestFinished(() => client.close());
  const stopping = new AbortController();
  const lines: string[] = [];
  const turns = new PollTurns({
    client,
    limiter: new RateLimiter({ rate: () => ({ count: 1, perMs: 1 }), take }),
    metrics: new WorkerMetrics(),
    logger: Object.assign(silentLogger(), { info: (line: string) => lines.push(line) }),
    stopping: stopping.signal,
  });
  /** How the turns of these messages end that are wanted together, and the calls that each counts. */
  const takeAll = async (count: number, signal?: AbortSignal) => {
    const ended = await Promise.all(
      idsOf(count).map((id) => turns.take(id, signal ?? new AbortController().signal)),
    );
    return ended.map(({ kind, polls }) => `${kind} ${polls}`);
  };
  return { takeAll, stopping, lines, requests: server.requests };
}

const idsOf = (count: number) => Array.from({ length: count }, (_, index) => String(index + 1));

test('messages that wait at the same time share a permit, and a call that one of them counts', async () => {
  let permits = 0;
  const permit = () => Promise.resolve({ dueInMs: [permits++], nextInMs: 0 });
  const { takeAll, requests } = await turnsAt(200, idsOf(3).map(working), permit);
  expect(await takeAll(3)).toEqual(['message 1', 'message 0', 'message 0']);
  expect([requests, permits]).toEqual([['POST /mj/task/list-by-condition'], 1]);
});

test('a message that waits by itself is asked for alone', async () => {
  const { takeAll, requests } = await turnsAt(200, []);
  expect(await takeAll(1)).toEqual(['alone 0']);
  expect(requests).toEqual([]);
});

test('a call asks for 50 messages at most', async () => {
  const { takeAll, requests } = await turnsAt(200, idsOf(60).map(working));
  const ended = await takeAll(60);
  expect(ended.flatMap((how, index) => (how === 'message 1' ? [index] : []))).toEqual([0, 50]);
  expect(ended.every((how) => how.startsWith('message'))).toBe(true);
  expect(requests).toHaveLength(2);
});

test.each<[string, number, unknown, boolean]>([
  ['leaves them out', 200, [], true],
  ['holds what cannot be read', 200, [{ id: '1', status: 'SUCCESS' }, null, 7], true],
  ['is over its limit', 429, { description: 'busy', code: 30 }, true],
  ['comes too early', 425, { description: 'too early', code: 30 }, true],
  ['is down', 502, '<html>', true],
  ['is not there', 404, '', false],
  ['is not allowed', 405, '<html>', false],
  ['is refused', 403, {}, false],
  ['is something else', 200, { data: [] }, false],
  ['is empty', 200, '', false],
])('messages whose list %s are asked for alone', async (_how, status, body, isTriedAgain) => {
  const { takeAll, requests, lines } = await turnsAt(status, body);
  expect(await takeAll(2)).toEqual(['alone 1', 'alone 0']);
  expect(await takeAll(2)).toEqual([isTriedAgain ? 'alone 1' : 'alone 0', 'alone 0']);
  expect([requests.length, lines.length]).toEqual(isTriedAgain ? [2, 0] : [1, 1]);
});

test('a message that is given up leaves at once, and the others get their answers', async () => {
  const { takeAll } = await turnsAt(200, idsOf(2).map(working));
  const ownEnd = new AbortController();
  const [gone, left] = [takeAll(1, ownEnd.signal), takeAll(2)];
  ownEnd.abort();
  expect(await gone).toEqual(['end 0']);
  expect(await left).toEqual(['message 0', 'message 0']);
});

test('a worker that stops waits for no permit', async () => {
  const { takeAll, stopping } = await turnsAt(200, [], () => new Promise(() => undefined));
  const taken = takeAll(2, stopping.signal);
  stopping.abort();
  expect(await taken).toEqual(['end 0', 'end 0']);
});
