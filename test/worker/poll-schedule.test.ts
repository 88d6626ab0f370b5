import { describe, expect, test } from 'vitest';
import { percentile } from '../../bench/perf/table.js';
import { playSchedule } from '../../bench/perf/virtual-polls.js';
import { PollSchedule } from '../../src/worker/poll-schedule.js';

/** Polls one message as a worker does, until it is completed. */
function pollUntil(schedule: PollSchedule, latencyMs: number): { polls: number; lateMs: number } {
  let waited = 0;
  let polls = 0;
  let gap = 0;
  while (waited < latencyMs || polls === 0) {
    gap = schedule.nextDelayMs(waited, 0);
    waited += gap;
    polls++;
  }
  schedule.completed(waited, gap);
  return { polls, lateMs: waited - latencyMs };
}

describe('the poll schedule', () => {
  test.each([
    [1, 1000],
    [2, 2000],
    [3, 4000],
    [5, 16_000],
    [6, 30_000],
    [50, 30_000],
    [5000, 30_000],
  ])('after %d failed polls in a row it waits %d ms, whatever else it knows', (failures, ms) => {
    const fresh = new PollSchedule();
    const taught = new PollSchedule();
    for (let sample = 0; sample < 100; sample++) taught.completed(5000, 100);
    expect([fresh.nextDelayMs(60_000, failures), taught.nextDelayMs(0, failures)]).toEqual([ms, ms]);
  });

  test.each([100, 1000, 10_000, 60_000, 600_000, 10 ** 8])(
    'never waits less than 100 ms or more than 30 s between two polls (%d ms waited)',
    (waited) => {
      for (const schedule of [new PollSchedule(), taughtWith(1), taughtWith(50)]) {
        const delay = schedule.nextDelayMs(waited, 0);
        expect(delay).toBeGreaterThanOrEqual(100);
        expect(delay).toBeLessThanOrEqual(30_000);
      }
    },
  );

  test('needs few polls for a latency that it does not know, and is not late by more than a third', () => {
    for (const latency of [300, 3000, 30_000, 120_000]) {
      const { polls, lateMs } = pollUntil(new PollSchedule(), latency);
      expect(polls).toBeLessThanOrEqual(30);
      expect(lateMs).toBeLessThanOrEqual(Math.max(200, latency * 0.31));
    }
  });

  test.each([0.2, 0.35])(
    'learns: three polls an image, and half of them are noticed within a tenth of their latency (sigma %d)',
    (spread) => {
      const load = { images: 2000, learning: 600, inFlight: 400, rate: 10, pollRate: 200, seed: 7 };
      const played = playSchedule(new PollSchedule(), { ...load, medianMs: 25_000, spread });
      expect(played.pollsPerImage).toBeLessThanOrEqual(3.1);
      expect(percentile(played.lateShares, 0.5)).toBeLessThanOrEqual(0.1);
    },
  );

  test('lets nobody starve with 2,000 in flight, and a poll rate that is too low for all of them', () => {
    const load = { images: 4000, inFlight: 2000, rate: 80, pollRate: 50, medianMs: 25_000, seed: 7 };
    const played = playSchedule(new PollSchedule(), { ...load, spread: 0.35 });
    expect(played.mostPollsInASecond).toBeLessThanOrEqual(51);
    // One round of all that are in flight.
    expect(played.longestWaitMs).toBeLessThanOrEqual((2000 / 50) * 1000 + 1000);
  });

  test('does not keep others waiting for one that is never completed', () => {
    const schedule = new PollSchedule();
    for (let waited = 0; waited < 600_000;) waited += schedule.nextDelayMs(waited, 0);
    expect(schedule.nextDelayMs(0, 0)).toBeLessThanOrEqual(15_000);
  });

  test('follows an API that becomes faster or slower', () => {
    const schedule = new PollSchedule();
    for (let message = 0; message < 200; message++) pollUntil(schedule, 40_000);
    expect(schedule.nextDelayMs(0, 0)).toBeGreaterThan(20_000);
    for (let message = 0; message < 200; message++) pollUntil(schedule, 2000);
    expect(schedule.nextDelayMs(0, 0)).toBeLessThan(3000);
    for (let message = 0; message < 200; message++) pollUntil(schedule, 40_000);
    expect(schedule.nextDelayMs(0, 0)).toBeGreaterThan(20_000);
  });
});

function taughtWith(seenMs: number): PollSchedule {
  const schedule = new PollSchedule();
  for (let sample = 0; sample < 64; sample++) schedule.completed(seenMs, 10);
  return schedule;
}
