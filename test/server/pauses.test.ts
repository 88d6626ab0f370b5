import { describe, expect, test } from 'vitest';
import { pausesOf } from '../../src/service/views.js';
import type { WorkerStatus } from '../../src/shared/published.js';

type PauseFacts = Parameters<typeof pausesOf>[0];

const worker = (state: WorkerStatus['state'], since = 0): WorkerStatus => ({
  ...{ host: 'h', pid: 1, state, since, share: 1 },
  reason: state === 'working' ? '' : `why ${state}`,
});
const facts = (some: Partial<PauseFacts>): PauseFacts => ({
  ...{ workers: [worker('working')], fellAt: 0, heldUntil: 0, isQueuePaused: false, images: 5, ...some },
});

describe('what is paused', () => {
  test.each<[string, Partial<PauseFacts>, object[]]>([
    ['nothing, while a worker works', {}, []],
    ['nothing, while one of several works', { workers: [worker('token'), worker('working')] }, []],
    [
      'the token is refused, since the last worker gave up',
      { workers: [worker('token', 5), worker('token', 9)] },
      [{ kind: 'token', since: 9, reason: 'why token' }],
    ],
    [
      'the quota is spent',
      { workers: [worker('quota', 5)] },
      [{ kind: 'quota', since: 5, reason: 'why quota' }],
    ],
    [
      'the API is down for those that have not given up',
      { workers: [worker('down', 7), worker('token', 3)] },
      [{ kind: 'down', since: 7, reason: 'why down' }],
    ],
    [
      'a 429, until it is over',
      { fellAt: 90, heldUntil: 112 },
      [{ kind: 'rate', since: 90, until: 112, reason: '' }],
    ],
    ['nothing, when the 429 is over', { fellAt: 90, heldUntil: 100 }, []],
    ['somebody has paused the queue', { isQueuePaused: true }, [{ kind: 'paused', reason: '' }]],
    ['images wait for a worker', { workers: [] }, [{ kind: 'no-worker', reason: '' }]],
    ['nothing, without images and workers', { workers: [], images: 0 }, []],
  ])('%s', (_title, some, expected) => {
    expect(pausesOf(facts(some), 100)).toEqual(expected);
  });
});
