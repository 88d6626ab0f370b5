import { setImmediate } from 'node:timers/promises';
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { Message, Submitted } from '../../src/describe-api/client.js';
import { dialectFor } from '../../src/describe-api/dialects/index.js';
import { describeQueueName, resultsQueueName } from '../../src/shared/account.js';
import { AccountLimits } from '../../src/shared/account-limits.js';
import { type DescribeJobData, type ResultJobData, freshJobData } from '../../src/shared/jobs.js';
import { silentLogger } from '../../src/shared/log.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RateLimiter, limiterName } from '../../src/shared/queue/limiter.js';
import { listSetAside } from '../../src/shared/run-leases.js';
import { ApiHealth } from '../../src/worker/api-health.js';
import { processImage } from '../../src/worker/process-image.js';
import { SpendingCounter } from '../../src/shared/run-spending.js';
import type { ActiveJob, ProcessingDeps, ProcessingOutcome } from '../../src/worker/processing.js';
import { createResultPublisher } from '../../src/worker/processing.js';
import { PollSchedule } from '../../src/worker/poll-schedule.js';
import { WorkerMetrics } from '../../src/worker/worker-metrics.js';
import { describeOnRedis } from '../helpers/queues.js';
import { completed, interrupted, refused, status, unreachable, unreadable } from './failures.js';

interface Scene {
  readonly submits?: (Submitted | Error)[];
  readonly polls?: (Message | Error)[];
  readonly data?: Partial<DescribeJobData>;
  readonly attemptsStarted?: number;
  readonly health?: ApiHealth;
  readonly stopping?: AbortSignal;
  readonly onSubmit?: () => void;
  /** While the queue counts the submit that is about to be made. */
  readonly onCall?: () => void;
  /** Whether the run's coordinator lives, each time it is looked for. */
  readonly lives?: boolean[];
  /** Whether its row has not been read yet. */
  readonly isHeld?: boolean;
  /** Whether another worker has taken the job up meanwhile. */
  readonly isTaken?: boolean;
}

class ImpatientSchedule extends PollSchedule {
  override nextDelayMs(): number {
    return 0;
  }
}

let connection: QueueConnection;
let count = 0;

/** Processes an image once against scripted answers, on a queue of its own; a poll takes ten seconds of the clock. */
async function play(scene: Scene) {
  const run = `run${count}`;
  const queue = connection.queue<DescribeJobData, ResultJobData>(
    describeQueueName({ host: 'api.test', dialect: 'thenextleg', name: `account${count++}` }),
  );
  const fresh = freshJobData({ run, url: 'http://h/i.jpg', row: 1, maxAttempts: 3, deadlineMs: 60_000 });
  const saved: DescribeJobData[] = [];
  const calls: string[] = [];
  const learned: string[] = [];
  const submits = [...(scene.submits ?? [])];
  const polls = [...(scene.polls ?? [])];
  let clock = 0;
  const job: ActiveJob = {
    image: 'image',
    identity: 'job@0',
    data: { ...fresh, ...scene.data },
    attemptsStarted: scene.attemptsStarted ?? 1,
    isHeld: scene.isHeld ?? false,
    save: (data) => {
      calls.push('save');
      saved.push(data);
      return Promise.resolve();
    },
    renewLock: () => (scene.isTaken === true ? Promise.reject(new Error('taken')) : Promise.resolve()),
    report: () => undefined,
    log: () => undefined,
  };
  const answer = <T>(script: (T | Error)[], what: string): Promise<T> => {
    calls.push(what);
    const next = script.shift() ?? new Error(`unexpected ${what}`);
    return next instanceof Error ? Promise.reject(next) : Promise.resolve(next);
  };
  const limiter = (takesMs: number) =>
    new RateLimiter({
      rate: () => ({ count: 1, perMs: 1 }),
      take: () => {
        clock += takesMs;
        return Promise.resolve({ dueInMs: [0], nextInMs: 0 });
      },
    });
  const pollLimiter = limiter(10_000);
  const counter = new SpendingCounter(connection);
  const spending: ProcessingDeps['spending'] = {
    takeCall: (of) => {
      scene.onCall?.();
      return counter.takeCall(of);
    },
    giveCallBack: (of) => counter.giveCallBack(of),
    add: (of, delta) => counter.add(of, delta),
  };
  const deps: ProcessingDeps = {
    connection,
    queue,
    client: {
      dialect: dialectFor({ dialect: 'thenextleg', api: 'http://api.test' }),
      submit: () => {
        scene.onSubmit?.();
        return answer(submits, 'submit');
      },
      message: (id) => answer(polls, `poll ${id}`),
    },
    images: {
      sendsUrl: () => true,
      read: (url) => Promise.resolve(url),
      refusedUrl: () => Promise.resolve(false),
      described: (url) => Promise.resolve(void learned.push(url)),
    },
    submitLimiter: limiter(0),
    pollTurns: {
      take: async (_id, stopping) => ({
        kind: (await pollLimiter.take(stopping)) ? 'alone' : 'end',
        polls: 0,
      }),
    },
    spending,
    limits: await AccountLimits.open(connection.store, queue.name, {}, silentLogger()),
    health: scene.health ?? new ApiHealth(() => 0),
    living: { has: () => Promise.resolve(scene.lives?.shift() ?? true) },
    schedule: new ImpatientSchedule(),
    metrics: new WorkerMetrics(),
    firstPolls: new Set(),
    publisher: createResultPublisher(connection),
    intake: {
      rest: () => Promise.resolve(void calls.push('rest')),
      takeNoMore: (why) => Promise.resolve(void calls.push(`no more: ${why}`)),
    },
    now: () => clock,
  };
  const ending = await processImage(job, deps, scene.stopping ?? new AbortController().signal);
  const { store } = connection;
  return {
    ending,
    saved,
    calls,
    learned,
    setAside: await listSetAside(store, run),
    counted: Number((await store.getFields(`spent:${run}`))['submits'] ?? 0),
    published: await connection.queue<ResultJobData, null>(resultsQueueName(run)).getWaitingCount(),
    heldMs: {
      submit: await store.holdPermits(limiterName('submit', queue.name), 0),
      poll: await store.holdPermits(limiterName('poll', queue.name), 0),
    },
  };
}

function failureOf(ending: ProcessingOutcome) {
  if (ending.kind !== 'fail' || ending.result.outcome.status !== 'failed') throw new Error(ending.kind);
  return ending.result.outcome;
}

const working = { status: 'working', progress: 10 } as const;
const expired = { status: 'incomplete' } as const;

describeOnRedis('what becomes of an image', (openQueue) => {
  beforeAll(async () => {
    connection = await (await openQueue()).connect();
  });

  describe('a processing', () => {
    test('submits, stores the message, polls until it is completed, and publishes the result', async () => {
      const { ending, calls, saved, published } = await play({
        submits: [{ messageId: 'm1' }],
        polls: [working, completed('m1')],
      });
      expect(published).toBe(1);
      expect(calls).toEqual(['submit', 'save', 'poll m1', 'poll m1']);
      expect(saved[0]).toMatchObject({ messageId: 'm1', submits: 1, attempts: 1 });
      expect(ending).toMatchObject({
        kind: 'complete',
        result: { submits: 1, polls: 2, maybePaid: 0, outcome: { status: 'described', messageId: 'm1' } },
      });
    });

    test.each([
      ['at once', [false]],
      ['also when its coordinator dies while it waits for its permit', [true, false]],
    ])('sets an image aside whose run has no coordinator, %s', async (_when, lives) => {
      const { ending, calls, setAside } = await play({ lives, data: { lastMessageId: undefined } });
      expect([calls, setAside]).toEqual([[], ['image']]);
      expect(ending).toMatchObject({ kind: 'delay', data: { submits: 0, attempts: 0 } });
    });

    test('asks for nothing, not even for an earlier message, while its run has no coordinator', async () => {
      const { calls, setAside } = await play({ lives: [false], data: { lastMessageId: 'old' } });
      expect([calls, setAside]).toEqual([[], ['image']]);
    });

    test('sets an image aside whose row has not been read yet', async () => {
      const { ending, calls, setAside } = await play({ isHeld: true, data: { submits: 1, attempts: 1 } });
      expect([ending.kind, setAside]).toEqual(['delay', ['image']]);
      expect(calls).not.toContain('submit');
    });

    test('submits nothing, and changes nothing, once another worker has taken up what has waited', async () => {
      const submitted: true[] = [];
      const onSubmit = () => void submitted.push(true);
      const data = { lastMessageId: 'old' };
      const scene = { data, polls: [status(404)], submits: [{ messageId: 'm' }], onSubmit, isTaken: true };
      await expect(play(scene)).rejects.toThrow('taken');
      expect(submitted).toEqual([]);
    });

    test('polls a message that is paid for, whether its coordinator lives or not', async () => {
      const { calls } = await play({ lives: [], data: { messageId: 'm0' }, polls: [completed('m0')] });
      expect(calls).toEqual(['poll m0']);
    });

    test('learns that URLs can be sent from what is described, not from what is submitted', async () => {
      const submits = [{ messageId: 'm1' }];
      const described = await play({ submits, polls: [completed('m1')] });
      expect(described.learned).toEqual(['http://h/i.jpg']);
      const polls = [{ status: 'incomplete', reason: 'the image could not be fetched' } as const];
      expect((await play({ submits, polls })).learned).toEqual([]);
      // An earlier submit may have sent the image itself.
      const taken = await play({ data: { messageId: 'm0', submits: 1 }, polls: [completed('m0')] });
      expect(taken.learned).toEqual([]);
    });

    test('polls and never submits when it starts with a message', async () => {
      const { calls } = await play({
        data: { messageId: 'm0', submits: 1 },
        polls: [completed('m0')],
        attemptsStarted: 2,
      });
      expect(calls).toEqual(['poll m0']);
    });

    test('counts a submit that a crash may have lost', async () => {
      const { ending } = await play({
        attemptsStarted: 3,
        data: { orderlyStarts: 1 },
        submits: [{ messageId: 'm1' }],
        polls: [completed('m1')],
      });
      expect(ending).toMatchObject({ result: { maybePaid: 1 } });
    });

    test('counts no loss for processings that ended in order, nor for one that had its message', async () => {
      const orderly = await play({
        attemptsStarted: 3,
        data: { orderlyStarts: 2 },
        submits: [{ messageId: 'm' }],
        polls: [completed('m')],
      });
      expect(orderly.ending).toMatchObject({ result: { maybePaid: 0 } });
      const polled = await play({ attemptsStarted: 9, data: { messageId: 'm' }, polls: [completed('m')] });
      expect(polled.ending).toMatchObject({ result: { maybePaid: 0 } });
    });

    test('starts counting over when the count was set back from outside', async () => {
      const { saved } = await play({
        attemptsStarted: 1,
        data: { orderlyStarts: 5 },
        submits: [{ messageId: 'm' }],
        polls: [completed('m')],
      });
      expect(saved[0]).toMatchObject({ orderlyStarts: 0 });
    });

    test('is stored as ended in order while it waits, and as begun before it submits', async () => {
      const { saved } = await play({
        attemptsStarted: 2,
        data: { lastMessageId: 'old', orderlyStarts: 1 },
        submits: [{ messageId: 'new' }],
        polls: [status(404), completed('new')],
      });
      expect(saved.map(({ orderlyStarts }) => orderlyStarts)).toEqual([2, 1, 2]);
    });

    test('asks once for the message of an earlier failure before it pays again', async () => {
      const { calls, ending } = await play({ data: { lastMessageId: 'old' }, polls: [completed('old')] });
      expect(calls).toEqual(['save', 'poll old']);
      expect(ending).toMatchObject({ kind: 'complete', result: { submits: 0 } });
    });

    test.each([
      ['is still working, which may be paid for twice then', working, 1],
      ['has expired', expired, 0],
      ['is gone', status(404), 0],
    ])('starts over when that message %s', async (_name, poll, maybePaid) => {
      const { calls, ending } = await play({
        data: { lastMessageId: 'old', attempts: 3 },
        submits: [{ messageId: 'new' }],
        polls: [poll, completed('new')],
      });
      expect(calls).toEqual(['save', 'poll old', 'save', 'submit', 'save', 'poll new']);
      expect(ending).toMatchObject({ kind: 'complete', result: { maybePaid } });
    });

    test('counts as perhaps paid twice what it submits anew because that message cannot be had', async () => {
      // It waits between its tries, as long as nobody moves the timers on.
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
      onTestFinished(() => void vi.useRealTimers());
      const playing = play({
        data: { lastMessageId: 'old' },
        submits: [{ messageId: 'new' }],
        polls: [...Array.from({ length: 5 }, () => status(503)), completed('new')],
      });
      let isOver = false;
      void playing.finally(() => (isOver = true));
      while (!isOver) {
        await vi.advanceTimersByTimeAsync(100);
        await setImmediate();
      }
      const { ending } = await playing;
      expect(ending).toMatchObject({ kind: 'complete', result: { submits: 1, maybePaid: 1 } });
    });

    test('stores what a synchronous API has answered before it publishes it, and polls nothing', async () => {
      const { ending, calls, saved, heldMs } = await play({
        submits: [{ messageId: 'c1', completed: completed('c1'), restMs: 7000 }],
      });
      expect(calls).toEqual(['submit', 'save']);
      expect(heldMs.submit).toBeGreaterThan(5000);
      expect(saved[0]).toMatchObject({ messageId: 'c1', answered: ['one', 'two', 'three', 'four'] });
      expect(ending).toMatchObject({
        kind: 'complete',
        result: { submits: 1, polls: 0, outcome: { status: 'described', messageId: 'c1' } },
      });
    });

    test('publishes what a crashed processing was answered, without paying or counting a loss', async () => {
      const { ending, calls } = await play({
        attemptsStarted: 2,
        data: { messageId: 'c1', answered: ['one', 'two', 'three', 'four'], submits: 1, attempts: 1 },
      });
      expect(calls).toEqual([]);
      expect(ending).toMatchObject({
        kind: 'complete',
        result: { submits: 1, polls: 0, maybePaid: 0, outcome: { messageId: 'c1' } },
      });
    });

    test('counts a synchronous submit as perhaps paid whose answer a crash has lost', async () => {
      const { ending } = await play({
        attemptsStarted: 2,
        submits: [{ messageId: 'c1', completed: completed('c1') }],
      });
      expect(ending).toMatchObject({ result: { submits: 1, maybePaid: 1 } });
    });

    test('does not lose the answer of a synchronous submit that was on the wire when it was told to stop', async () => {
      const stopping = new AbortController();
      const { ending } = await play({
        submits: [{ messageId: 'c1', completed: completed('c1') }],
        stopping: stopping.signal,
        onSubmit: () => stopping.abort(),
      });
      expect(ending).toMatchObject({ kind: 'complete', result: { outcome: { status: 'described' } } });
    });

    test('releases a fresh image unsubmitted when it is being stopped', async () => {
      const { ending, calls } = await play({ stopping: AbortSignal.abort() });
      expect(ending.kind).toBe('release');
      expect(calls).toEqual([]);
    });

    test('releases an image unsubmitted and uncounted that is about to be submitted when it is being stopped', async () => {
      const stopping = new AbortController();
      const { ending, calls, counted } = await play({
        submits: [{ messageId: 'm' }],
        stopping: stopping.signal,
        onCall: () => stopping.abort(),
      });
      expect([calls, counted]).toEqual([[], 0]);
      expect(ending).toMatchObject({ kind: 'release', data: { submits: 0, orderlyStarts: 1 } });
    });

    test('stores what was paid for before it releases an image', async () => {
      const stopping = new AbortController();
      const { ending, calls } = await play({
        submits: [{ messageId: 'm' }],
        stopping: stopping.signal,
        onSubmit: () => stopping.abort(),
      });
      expect(calls).toEqual(['submit', 'save']);
      expect(ending).toMatchObject({ kind: 'release', data: { messageId: 'm' } });
    });
  });

  describe('how a submit can fail', () => {
    test.each<[string, Error, ProcessingOutcome['kind'], Partial<DescribeJobData>]>([
      [
        'connection refused: again, no attempt used, no call counted',
        unreachable(),
        'delay',
        { attempts: 0, maybePaid: 0, submits: 0 },
      ],
      [
        'reset after sending: again, counted as perhaps paid',
        interrupted(),
        'delay',
        { attempts: 1, maybePaid: 1 },
      ],
      ['500: again, counted as perhaps paid', status(500), 'delay', { attempts: 1, maybePaid: 1 }],
      [
        '503 that refuses clearly: again, not counted',
        status(503, { refused: true }),
        'delay',
        { attempts: 1, maybePaid: 0 },
      ],
      ['429: the queue waits, no attempt used', status(429), 'rateLimited', { attempts: 0, maybePaid: 0 }],
      ['401: it is released', status(401), 'release', { attempts: 0, maybePaid: 0 }],
      ['402 once: again later', status(402), 'delay', { attempts: 1, maybePaid: 0 }],
    ])('%s', async (_name, error, kind, data) => {
      const { ending } = await play({ submits: [error] });
      expect(ending).toMatchObject({ kind, data: { submits: 1, orderlyStarts: 1, ...data } });
      expect(ending).not.toHaveProperty('data.messageId');
    });

    test('an answer that cannot be read is asked for once more, whatever failed before it', async () => {
      const first = await play({ data: { attempts: 1 }, submits: [unreadable('a barn')] });
      expect(first.ending).toMatchObject({ kind: 'delay', data: { attempts: 2, wrong: 'no JSON' } });
      const second = await play({ data: { attempts: 1, wrong: 'no JSON' }, submits: [unreadable('a barn')] });
      expect(failureOf(second.ending)).toMatchObject({ code: 'bad-response', answer: 'a barn' });
    });

    test('a 429 holds the submits of the whole account for as long as it says', async () => {
      const { heldMs } = await play({ submits: [status(429, { retryAfterMs: 30_000 })] });
      expect(heldMs.submit).toBeGreaterThan(25_000);
      expect(heldMs.submit).toBeLessThanOrEqual(30_000);
    });

    test.each([400, 404, 413, 415, 422])('%d where images are described: failed at once', async (code) => {
      const health = new ApiHealth(() => 0);
      health.succeeded('submit');
      const { ending } = await play({ submits: [status(code)], health });
      expect(failureOf(ending)).toMatchObject({ code: 'rejected', attempts: 1 });
    });

    test('success:false with a reason: failed at once, reason kept', async () => {
      const { ending } = await play({ submits: [refused('Invalid phrase')] });
      const failure = failureOf(ending);
      expect([failure.code, failure.reason]).toEqual(['rejected', 'Invalid phrase']);
    });

    test('fails when its attempts are used up', async () => {
      const { ending } = await play({ data: { attempts: 2 }, submits: [status(500)] });
      expect(failureOf(ending)).toMatchObject({ code: 'http', attempts: 3 });
    });

    test('a quota refusal for three different images with no success between stops the worker', async () => {
      const health = new ApiHealth(() => 0);
      health.suspected('one', false);
      health.suspected('two', false);
      const { ending, calls } = await play({ submits: [status(402)], health });
      expect(calls).toEqual(['submit', 'no more: quota']);
      expect(ending).toMatchObject({ kind: 'release', data: { submits: 1, attempts: 0 } });
    });

    test('a refusal of one image alone costs attempts, and fails it when they are used up', async () => {
      const first = await play({ submits: [status(403)] });
      expect(first.ending).toMatchObject({ kind: 'delay', data: { attempts: 1, maybePaid: 0 } });
      const last = await play({ submits: [status(403)], data: { attempts: 2 } });
      expect(failureOf(last.ending)).toMatchObject({ code: 'http', attempts: 3 });
    });

    test('the third image in a row that is refused alike, with none described yet, stops the worker', async () => {
      const health = new ApiHealth(() => 0);
      health.refused('one', 'bad');
      health.refused('two', 'bad');
      const { ending, calls } = await play({ submits: [refused('bad')], health });
      expect(calls).toEqual(['submit', 'no more: set-up']);
      expect(ending).toMatchObject({ kind: 'release', data: { submits: 1, attempts: 0, maybePaid: 0 } });
    });

    test('one that is refused before any was described waits for the first success, then fails', async () => {
      const health = new ApiHealth(() => 0);
      const onSubmit = () => setTimeout(() => health.succeeded('submit'), 20);
      const { ending } = await play({ submits: [refused('bad')], health, onSubmit });
      expect(failureOf(ending)).toMatchObject({ code: 'rejected', reason: 'bad', attempts: 1 });
    });

    test('alone it is tried three times before it fails; 429s before do not count', async () => {
      const health = new ApiHealth(() => 0);
      health.waitUntilWorked = () => Promise.resolve(false);
      const first = await play({ submits: [refused('bad')], health });
      expect(first.ending).toMatchObject({ kind: 'delay', data: { attempts: 1 } });
      const last = await play({ submits: [refused('bad')], data: { attempts: 2 }, health });
      expect(failureOf(last.ending)).toMatchObject({ code: 'rejected' });
      const afterRateLimits = await play({ submits: [refused('bad')], data: { submits: 9 }, health });
      expect(afterRateLimits.ending).toMatchObject({ kind: 'delay' });
    });

    test('a poll that is told to wait waits no longer than the deadline', async () => {
      const { ending, heldMs } = await play({
        submits: [{ messageId: 'm1' }],
        polls: [status(429, { retryAfterMs: 900_000 }), working, working, working, working, working],
      });
      expect(failureOf(ending)).toMatchObject({ code: 'deadline' });
      expect(heldMs.poll).toBeLessThanOrEqual(50_000);
      expect(heldMs.poll).toBeGreaterThan(40_000);
    });

    test('uses no attempt while the account is down', async () => {
      let now = 0;
      const health = new ApiHealth(() => now);
      for (const image of ['a', 'b', 'c', 'd', 'e']) health.failed('submit', image);
      const waiting = await play({ submits: [], health });
      expect(waiting).toMatchObject({
        calls: ['save', 'rest'],
        ending: { kind: 'release', data: { submits: 0 } },
      });
      now = 60_000;
      const probing = await play({ submits: [status(500)], data: { attempts: 2 }, health });
      expect(probing.ending).toMatchObject({ kind: 'delay', data: { attempts: 2 } });
    });
  });

  describe('how a poll can fail', () => {
    test.each([
      ['a broken connection', interrupted()],
      ['500', status(500)],
      ['429', status(429)],
      ['404, not visible yet', status(404)],
      ['402', status(402)],
    ])('%s is waited for, with no attempt used and no submit', async (_name, error) => {
      const { ending, calls } = await play({
        data: { messageId: 'm', attempts: 1 },
        attemptsStarted: 2,
        polls: [error, completed('m')],
      });
      expect(calls).toEqual(['poll m', 'poll m']);
      expect(ending).toMatchObject({ kind: 'complete', result: { outcome: { status: 'described' } } });
    });

    test('401 stops the worker and keeps the message', async () => {
      const { ending, calls } = await play({ data: { messageId: 'm' }, polls: [status(401)] });
      expect(calls).toEqual(['poll m', 'no more: token']);
      expect(ending).toMatchObject({ kind: 'release', data: { messageId: 'm' } });
    });

    test('an expired message leads to a new submit', async () => {
      const { ending } = await play({ data: { messageId: 'm', attempts: 1 }, polls: [expired] });
      expect(ending).toMatchObject({ kind: 'delay', data: { messageId: undefined, attempts: 1 } });
    });

    test('a message that failed leads to a new submit, and its reason is kept when the attempts are used up', async () => {
      const failure = { status: 'incomplete', reason: 'Image is banned' } as const;
      const first = await play({ data: { messageId: 'm', attempts: 1 }, polls: [failure] });
      expect(first.ending).toMatchObject({ kind: 'delay', data: { messageId: undefined, attempts: 1 } });
      const last = await play({ data: { messageId: 'm', attempts: 3 }, polls: [failure] });
      expect(failureOf(last.ending)).toMatchObject({
        code: 'incomplete',
        reason: 'message m failed: Image is banned',
      });
    });

    test('an expired message fails the image when its attempts are used up', async () => {
      const { ending } = await play({ data: { messageId: 'm', attempts: 3 }, polls: [expired] });
      expect(failureOf(ending)).toMatchObject({ code: 'incomplete', messageId: 'm' });
    });

    test('a message that is not completed in time is polled once more, then fails', async () => {
      const { ending, calls } = await play({
        data: { messageId: 'm', waitedMs: 60_000 },
        polls: [working],
      });
      expect(calls).toEqual(['poll m']);
      expect(failureOf(ending)).toMatchObject({ code: 'deadline', messageId: 'm' });
    });

    test('a message that was completed while nobody looked is described, however late', async () => {
      const { ending } = await play({ data: { messageId: 'm', waitedMs: 10 ** 9 }, polls: [completed('m')] });
      expect(ending).toMatchObject({ result: { outcome: { status: 'described' } } });
    });

    test('a failed image keeps its last message for the next time, with all attempts', async () => {
      const { ending } = await play({ data: { messageId: 'm', attempts: 3 }, polls: [expired] });
      expect(ending).toMatchObject({ data: { lastMessageId: 'm', messageId: undefined, attempts: 0 } });
    });
  });
});
