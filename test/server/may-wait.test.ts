import { expect, test } from 'vitest';
import { type BusyRequest, mayWait } from '../../src/service/running-request.js';

const taken: BusyRequest = { attemptsStarted: 2, wasOpened: false, isHolderAlive: false, silentMs: 0 };
const HOUR_MS = 3_600_000;

test.each<[string, Partial<BusyRequest>, boolean]>([
  ['a new one', { attemptsStarted: 1 }, false],
  ['a new one while the other run lives', { attemptsStarted: 1, isHolderAlive: true }, false],
  ['one that a server had taken, at first', {}, true],
  ['one that a server had taken, after a minute', { silentMs: 60_000 }, false],
  ['one that a server had taken, as long as there is life', { silentMs: HOUR_MS, isHolderAlive: true }, true],
  ['a run that has begun, however long its server is frozen', { silentMs: HOUR_MS, wasOpened: true }, true],
])('of requests whose output is busy, %s: %j may wait: %s', (_title, request, expected) => {
  expect(mayWait({ ...taken, ...request })).toBe(expected);
});
