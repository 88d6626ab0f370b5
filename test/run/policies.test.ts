import { describe, expect, test } from 'vitest';
import { exitCodeOf } from '../../src/run/exit-code.js';
import { FailingManifest, RunControl, judgeWorkers } from '../../src/run/run-control.js';
import type { RunStop } from '../../src/run/run-options.js';
import type { ErrorCode, Outcome } from '../../src/shared/jobs.js';
import type { WorkerStatus } from '../../src/shared/published.js';

describe('exit code', () => {
  const none: RunStop | undefined = undefined;
  const stop = (kind: RunStop['kind']): RunStop => ({ kind, reason: '' });
  test.each<[string, boolean, RunStop | undefined, [ErrorCode, number][], ErrorCode[], number]>([
    ['all described', true, none, [], [], 0],
    ['some failed', true, none, [['http', 1]], [], 2],
    ['failures that are accepted', true, none, [['http', 1]], ['http'], 0],
    [
      'one code accepted, another not',
      true,
      none,
      [
        ['http', 1],
        ['lost', 1],
      ],
      ['http'],
      2,
    ],
    ['a receipt that does not balance', false, none, [], [], 1],
    ['a fatal error', true, stop('fatal'), [], [], 1],
    ['a refused token', true, stop('token'), [], [], 3],
    ['a spent quota', true, stop('quota'), [['http', 1]], [], 3],
    ['a wrong set-up', true, stop('set-up'), [], [], 3],
    ['an API that is down', true, stop('down'), [], [], 4],
    ['a failing manifest', true, stop('failing'), [['rejected', 30]], ['rejected'], 4],
    ['an interrupt', true, stop('interrupted'), [['http', 1]], [], 130],
  ])('%s', (_name, balanced, why, failed, accepted, code) => {
    expect(exitCodeOf({ balanced }, why, new Map(failed), new Set(accepted))).toBe(code);
  });
});

describe('why a run stops', () => {
  test('is the first reason, but a failure that follows it is not hidden by it', () => {
    const interrupt = new AbortController();
    const control = new RunControl(interrupt.signal);
    interrupt.abort();
    control.stop({ kind: 'cancelled', reason: 'cancelled' });
    expect(control.reason).toMatchObject({ kind: 'interrupted' });
    control.fail(new Error('the disk is full'));
    control.fail(new Error('the run file could not be written'));
    expect(control.reason).toEqual({ kind: 'fatal', reason: 'the disk is full' });
  });
});

describe('stop-failing', () => {
  const described: Outcome = {
    status: 'described',
    prompts: ['a', 'b', 'c', 'd'],
    messageId: 'm',
    describedAt: '2026-01-01T00:00:00.000Z',
  };
  const failed = (code: ErrorCode): Outcome => ({ status: 'failed', code, reason: 'x', attempts: 1 });
  const feed = (watch: FailingManifest, outcome: Outcome, times: number) => {
    for (let time = 0; time < times; time++) watch.add(outcome);
    return watch;
  };

  test('says nothing before 50 outcomes are in', () => {
    expect(feed(new FailingManifest(50), failed('rejected'), 49).isFailing(0)).toBe(false);
  });
  test('stops at more than half of the last 50, not at half', () => {
    const watch = feed(new FailingManifest(50), failed('rejected'), 25);
    expect(feed(watch, described, 25).isFailing(0)).toBe(false);
    expect(feed(watch, described, 24).isFailing(0)).toBe(false);
    expect(feed(watch, failed('deadline'), 25).isFailing(0)).toBe(false);
    expect(feed(watch, failed('incomplete'), 1).isFailing(0)).toBe(true);
  });
  test('does not count failures that the API is to blame for', () => {
    expect(feed(new FailingManifest(50), failed('http'), 100).isFailing(0)).toBe(false);
  });
  test('is turned off by 100', () => {
    expect(feed(new FailingManifest(100), failed('rejected'), 100).isFailing(0)).toBe(false);
  });
  test('is no false alarm when refusals come before the first prompts can', () => {
    // A tenth is refused at once; the others are in flight for 30 s.
    const watch = feed(new FailingManifest(50), failed('rejected'), 50);
    expect(watch.isFailing(450)).toBe(false);
    // So it stays when the first of them are completed, in the order in which they were submitted.
    for (let second = 0; second < 20; second++) {
      feed(feed(watch, failed('rejected'), 1), described, 9);
      expect(watch.isFailing(450)).toBe(false);
    }
  });
  test('stops when images begin to fail while others are in flight, and when all that is in flight fails', () => {
    const refused = feed(new FailingManifest(50), described, 50);
    expect(refused.isFailing(300)).toBe(false);
    expect(feed(refused, failed('rejected'), 50).isFailing(290)).toBe(true);
    const expiring = new FailingManifest(50);
    expect(expiring.isFailing(300)).toBe(false);
    expect(feed(expiring, failed('deadline'), 50).isFailing(300)).toBe(true);
  });
});

describe('the state of the workers', () => {
  const worker = (state: WorkerStatus['state'], since = 0): WorkerStatus => ({
    host: 'h',
    pid: 1,
    state,
    reason: 'no',
    since,
    share: 1,
  });
  const minutes = 60_000;
  test.each<[string, WorkerStatus[], RunStop['kind'] | undefined]>([
    ['no worker at all: the run waits', [], undefined],
    ['one works', [worker('working'), worker('token')], undefined],
    ['all are refused', [worker('token'), worker('token')], 'token'],
    ['the quota is spent', [worker('quota')], 'quota'],
    ['nothing is described there', [worker('set-up')], 'set-up'],
    ['down for 14 minutes', [worker('down', 2 * minutes)], undefined],
    ['down for 15 minutes', [worker('down', 1 * minutes)], 'down'],
    [
      'down for 15 minutes for one, less for the other',
      [worker('down', 1 * minutes), worker('down', 9 * minutes)],
      undefined,
    ],
    ['one down, the other refused', [worker('down', 0), worker('token')], 'down'],
  ])('%s', (_name, workers, kind) => {
    const timing = { downLimitMs: 15 * minutes, startedAt: 0 };
    expect(judgeWorkers(workers, 16 * minutes, timing)?.kind).toBe(kind);
  });
  test('says in the words of the newest failure why the API is down', () => {
    const timing = { downLimitMs: 15 * minutes, startedAt: 0 };
    const workers = [{ ...worker('down', 0), reason: 'there is no host' }];
    expect(judgeWorkers(workers, 15 * minutes, timing)?.reason).toBe(
      'the API has not answered for 15 min: there is no host',
    );
  });
  test('counts no time from before the run began: an idle worker probes nothing', () => {
    const timing = { downLimitMs: 15 * minutes, startedAt: 10 * minutes };
    const workers = [worker('down', 0)];
    expect(judgeWorkers(workers, 24 * minutes, timing)).toBeUndefined();
    expect(judgeWorkers(workers, 25 * minutes, timing)?.kind).toBe('down');
  });
});
