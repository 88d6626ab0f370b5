import { describe, expect, it } from 'vitest';
import type { Submitted } from '../../src/describe-api/client.js';
import { type DescribeJobData, freshJobData } from '../../src/shared/jobs.js';
import { processImage } from '../../src/worker/process-image.js';
import type { ProcessingDeps, ActiveJob } from '../../src/worker/processing.js';
import { ApiHealth } from '../../src/worker/api-health.js';
import type { ProcessingOutcome } from '../../src/worker/processing.js';
import { FirstPolls } from '../../src/worker/poll-schedule.js';
import { completed, interrupted, refused, status, unreachable } from './failures.js';

type Answer = Submitted | Error;
type Poll = Awaited<ReturnType<ProcessingDeps['client']['message']>> | Error;

interface Scene {
  readonly submits?: Answer[];
  readonly polls?: Poll[];
  readonly data?: Partial<DescribeJobData>;
  readonly attemptsStarted?: number;
  readonly health?: ApiHealth;
  readonly stopping?: AbortSignal;
  readonly onSubmit?: () => void;
  /** Whether the run's coordinator lives, each time it is looked for. */
  readonly mayPay?: boolean[];
}

/** Plays one activation against scripted answers; no time passes. */
async function play(scene: Scene) {
  const fresh = freshJobData({ run: 'r', url: 'http://h/i.jpg', row: 1, maxAttempts: 3, deadlineMs: 60_000 });
  const saved: DescribeJobData[] = [];
  const calls: string[] = [];
  const submits = [...(scene.submits ?? [])];
  const polls = [...(scene.polls ?? [])];
  let clock = 0;
  const job: ActiveJob = {
    image: 'image',
    identity: 'job@0',
    data: { ...fresh, ...scene.data },
    attemptsStarted: scene.attemptsStarted ?? 1,
    save: async (data) => {
      calls.push('save');
      saved.push(data);
      return Promise.resolve();
    },
    report: () => undefined,
    log: () => undefined,
  };
  const answer = <T>(script: (T | Error)[], what: string): Promise<T> => {
    calls.push(what);
    const next = script.shift();
    if (next === undefined) return Promise.reject(new Error(`unexpected ${what}`));
    return next instanceof Error ? Promise.reject(next) : Promise.resolve(next);
  };
  const tools: ProcessingDeps = {
    client: {
      dialect: {},
      submit: () => {
        scene.onSubmit?.();
        return answer(submits, 'submit');
      },
      message: (id) => answer(polls, `poll ${id}`),
    },
    health: scene.health ?? new ApiHealth(() => 0),
    schedule: { nextDelayMs: () => 0, completed: () => undefined, learned: () => [] },
    firstPolls: new FirstPolls(),
    mayPay: () => Promise.resolve(scene.mayPay?.shift() ?? true),
    setAside: (run, image) => {
      calls.push(`set aside ${run} ${image}`);
      return Promise.resolve();
    },
    takeSubmitPermit: (signal) => Promise.resolve(!signal.aborted),
    takePollPermit: (signal) => {
      clock += 10_000;
      return Promise.resolve(!signal.aborted);
    },
    holdPolls: (ms) => {
      calls.push(`hold polls ${ms}`);
      return Promise.resolve();
    },
    submitted: () => Promise.resolve(),
    holdSubmits: (ms) => {
      calls.push(`hold ${ms}`);
      return Promise.resolve();
    },
    refused: (ms) => Promise.resolve(ms ?? 1000),
    now: () => clock,
  };
  const ending = await processImage(job, tools, scene.stopping ?? new AbortController().signal);
  return { ending, saved, calls };
}

function failureOf(ending: ProcessingOutcome) {
  if (ending.kind !== 'outcome' || ending.result.outcome.status !== 'failed') throw new Error(ending.kind);
  return ending.result.outcome;
}

const working = { status: 'working', progress: 10 } as const;
const expired = { status: 'incomplete' } as const;

describe('an activation', () => {
  it('submits, stores the message, then polls until it is completed', async () => {
    const { ending, calls, saved } = await play({
      submits: [{ messageId: 'm1' }],
      polls: [working, completed('m1')],
    });
    expect(calls).toEqual(['submit', 'save', 'poll m1', 'poll m1']);
    expect(saved[0]).toMatchObject({ messageId: 'm1', submits: 1, attempts: 1 });
    expect(ending).toMatchObject({
      kind: 'outcome',
      result: { submits: 1, polls: 2, maybePaid: 0, outcome: { status: 'described', messageId: 'm1' } },
    });
  });

  it.each([
    ['at once', [false]],
    ['also when its coordinator dies while it waits for its permit', [true, false]],
  ])('sets an image aside whose run nobody runs, %s', async (_when, mayPay) => {
    const { ending, calls } = await play({ mayPay, data: { lastMessageId: undefined } });
    expect(calls).toEqual(['set aside r image']);
    expect(ending).toMatchObject({ kind: 'delay', data: { submits: 0, attempts: 0 } });
  });

  it('asks for nothing, not even for an earlier message, while nobody runs its run', async () => {
    const { calls } = await play({ mayPay: [false], data: { lastMessageId: 'old' } });
    expect(calls).toEqual(['set aside r image']);
  });

  it('polls a message that is paid for, whether its coordinator lives or not', async () => {
    const { calls } = await play({ mayPay: [], data: { messageId: 'm0' }, polls: [completed('m0')] });
    expect(calls).toEqual(['poll m0']);
  });

  it('polls and never submits when it starts with a message', async () => {
    const { calls } = await play({
      data: { messageId: 'm0', submits: 1 },
      polls: [completed('m0')],
      attemptsStarted: 2,
    });
    expect(calls).toEqual(['poll m0']);
  });

  it('counts a submit that a crash may have lost', async () => {
    const { ending } = await play({
      attemptsStarted: 3,
      data: { orderlyStarts: 1 },
      submits: [{ messageId: 'm1' }],
      polls: [completed('m1')],
    });
    expect(ending).toMatchObject({ result: { maybePaid: 1 } });
  });

  it('counts no loss for activations that ended in order, nor for one that had its message', async () => {
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

  it('starts counting over when the count was set back from outside', async () => {
    const { saved } = await play({
      attemptsStarted: 1,
      data: { orderlyStarts: 5 },
      submits: [{ messageId: 'm' }],
      polls: [completed('m')],
    });
    expect(saved[0]).toMatchObject({ orderlyStarts: 0 });
  });

  it('asks once for the message of an earlier failure before it pays again', async () => {
    const { calls, ending } = await play({ data: { lastMessageId: 'old' }, polls: [completed('old')] });
    expect(calls).toEqual(['poll old']);
    expect(ending).toMatchObject({ kind: 'outcome', result: { submits: 0 } });
  });

  it.each([
    ['is still working', working],
    ['has expired', expired],
    ['is gone', status(404)],
  ])('starts over when that message %s', async (_name, poll) => {
    const { calls } = await play({
      data: { lastMessageId: 'old', attempts: 3 },
      submits: [{ messageId: 'new' }],
      polls: [poll, completed('new')],
    });
    expect(calls).toEqual(['poll old', 'submit', 'save', 'poll new']);
  });

  it('stores what a synchronous API has answered before it hands it over, and polls nothing', async () => {
    const { ending, calls, saved } = await play({
      submits: [{ messageId: 'c1', completed: completed('c1'), restMs: 700 }],
    });
    expect(calls).toEqual(['submit', 'save', 'hold 700']);
    expect(saved[0]).toMatchObject({ messageId: 'c1', answered: ['one', 'two', 'three', 'four'] });
    expect(ending).toMatchObject({
      kind: 'outcome',
      result: { submits: 1, polls: 0, outcome: { status: 'described', messageId: 'c1' } },
      data: { messageId: undefined, answered: undefined },
    });
  });

  it('hands over what a crashed activation was answered, without paying or counting a loss', async () => {
    const { ending, calls } = await play({
      attemptsStarted: 2,
      data: { messageId: 'c1', answered: ['one', 'two', 'three', 'four'], submits: 1, attempts: 1 },
    });
    expect(calls).toEqual([]);
    expect(ending).toMatchObject({
      kind: 'outcome',
      result: { submits: 1, polls: 0, maybePaid: 0, outcome: { messageId: 'c1' } },
    });
  });

  it('counts a synchronous submit as perhaps paid whose answer a crash has lost', async () => {
    const { ending } = await play({
      attemptsStarted: 2,
      submits: [{ messageId: 'c1', completed: completed('c1') }],
    });
    expect(ending).toMatchObject({ result: { submits: 1, maybePaid: 1 } });
  });

  it('does not lose the answer of a synchronous submit that was on the wire when it was told to stop', async () => {
    const stopping = new AbortController();
    const { ending } = await play({
      submits: [{ messageId: 'c1', completed: completed('c1') }],
      stopping: stopping.signal,
      onSubmit: () => stopping.abort(),
    });
    expect(ending).toMatchObject({ kind: 'outcome', result: { outcome: { status: 'described' } } });
  });

  it('hands a fresh image back unsubmitted when it is being stopped', async () => {
    const { ending, calls } = await play({ stopping: AbortSignal.abort() });
    expect(ending.kind).toBe('release');
    expect(calls).toEqual([]);
  });

  it('stores what was paid for before it hands an image back', async () => {
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
  it.each<[string, Error, ProcessingOutcome['kind'], Partial<DescribeJobData>]>([
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
    ['429: the queue waits, no attempt used', status(429), 'rate-limited', { attempts: 0, maybePaid: 0 }],
    ['401: this worker stops', status(401), 'stop', { attempts: 0, maybePaid: 0 }],
    ['402 once: again later', status(402), 'delay', { attempts: 1, maybePaid: 0 }],
  ])('%s', async (_name, error, kind, data) => {
    const { ending } = await play({ submits: [error] });
    expect(ending).toMatchObject({ kind, data: { submits: 1, orderlyStarts: 1, ...data } });
    expect(ending).not.toHaveProperty('data.messageId');
  });

  it.each([400, 404, 413, 415, 422])('%d: failed at once, reason kept', async (code) => {
    const { ending } = await play({ submits: [status(code)] });
    expect(failureOf(ending)).toMatchObject({ code: 'rejected', attempts: 1 });
  });

  it('success:false with a reason: failed at once, reason kept', async () => {
    const { ending } = await play({ submits: [refused('Invalid phrase')] });
    const failure = failureOf(ending);
    expect([failure.code, failure.reason]).toEqual(['rejected', 'Invalid phrase']);
  });

  it('fails when its attempts are used up', async () => {
    const { ending } = await play({ data: { attempts: 2 }, submits: [status(500)] });
    expect(failureOf(ending)).toMatchObject({ code: 'http', attempts: 3 });
  });

  it('a quota refusal for three different images with no success between stops the worker', async () => {
    const health = new ApiHealth(() => 0);
    health.quotaRefused('one', false);
    health.quotaRefused('two', false);
    const { ending } = await play({ submits: [status(402)], health });
    expect(ending).toMatchObject({ kind: 'stop', why: 'quota' });
  });

  it('a refusal of one image alone costs attempts, and fails it when they are used up', async () => {
    const first = await play({ submits: [status(403)] });
    expect(first.ending).toMatchObject({ kind: 'delay', data: { attempts: 1, maybePaid: 0 } });
    const last = await play({ submits: [status(403)], data: { attempts: 2 } });
    expect(failureOf(last.ending)).toMatchObject({ code: 'rejected', attempts: 3 });
  });

  it('a poll that is told to wait waits no longer than the deadline', async () => {
    const { ending, calls } = await play({
      submits: [{ messageId: 'm1' }],
      polls: [status(429, { retryAfterMs: 900_000 }), working, working, working, working, working],
    });
    expect(failureOf(ending)).toMatchObject({ code: 'deadline' });
    expect(calls).toContain('hold polls 50000');
  });

  it('uses no attempt while the account is down', async () => {
    let now = 0;
    const health = new ApiHealth(() => now);
    for (const image of ['a', 'b', 'c', 'd', 'e']) health.failed('submit', image);
    const waiting = await play({ submits: [], health });
    expect(waiting.ending).toMatchObject({ kind: 'rest' });
    now = 60_000;
    const probing = await play({ submits: [status(500)], data: { attempts: 2 }, health });
    expect(probing.ending).toMatchObject({ kind: 'delay', data: { attempts: 2 } });
  });
});

describe('how a poll can fail', () => {
  it.each([
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
    expect(ending).toMatchObject({ kind: 'outcome', result: { outcome: { status: 'described' } } });
  });

  it('401 stops the worker and keeps the message', async () => {
    const { ending } = await play({ data: { messageId: 'm' }, polls: [status(401)] });
    expect(ending).toMatchObject({ kind: 'stop', why: 'token', data: { messageId: 'm' } });
  });

  it('an expired message leads to a new submit', async () => {
    const { ending } = await play({ data: { messageId: 'm', attempts: 1 }, polls: [expired] });
    expect(ending).toMatchObject({ kind: 'delay', data: { messageId: undefined, attempts: 1 } });
  });

  it('a message that failed leads to a new submit, and its reason is kept when the attempts are used up', async () => {
    const failure = { status: 'incomplete', reason: 'Image is banned' } as const;
    const first = await play({ data: { messageId: 'm', attempts: 1 }, polls: [failure] });
    expect(first.ending).toMatchObject({ kind: 'delay', data: { messageId: undefined, attempts: 1 } });
    const last = await play({ data: { messageId: 'm', attempts: 3 }, polls: [failure] });
    expect(failureOf(last.ending)).toMatchObject({
      code: 'incomplete',
      reason: 'message m failed: Image is banned',
    });
  });

  it('an expired message fails the image when its attempts are used up', async () => {
    const { ending } = await play({ data: { messageId: 'm', attempts: 3 }, polls: [expired] });
    expect(failureOf(ending)).toMatchObject({ code: 'incomplete', messageId: 'm' });
  });

  it('a message that is not completed in time is polled once more, then fails', async () => {
    const { ending, calls } = await play({
      data: { messageId: 'm', waitedMs: 60_000 },
      polls: [working],
    });
    expect(calls).toEqual(['poll m']);
    expect(failureOf(ending)).toMatchObject({ code: 'deadline', messageId: 'm' });
  });

  it('a message that was completed while nobody looked is described, however late', async () => {
    const { ending } = await play({ data: { messageId: 'm', waitedMs: 10 ** 9 }, polls: [completed('m')] });
    expect(ending).toMatchObject({ result: { outcome: { status: 'described' } } });
  });

  it('a failed image keeps its last message for the next time, with all attempts', async () => {
    const { ending } = await play({ data: { messageId: 'm', attempts: 3 }, polls: [expired] });
    expect(ending).toMatchObject({ data: { lastMessageId: 'm', messageId: undefined, attempts: 0 } });
  });
});
