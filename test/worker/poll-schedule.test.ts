import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/simulator/random.js';
import { type PollSchedule, createPollSchedule } from '../../src/worker/poll-schedule.js';

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
  it.each([
    [1, 1000],
    [2, 2000],
    [3, 4000],
    [5, 16_000],
    [6, 30_000],
    [50, 30_000],
    [5000, 30_000],
  ])('after %d failed polls in a row it waits %d ms, whatever else it knows', (failures, ms) => {
    const fresh = createPollSchedule();
    const taught = createPollSchedule();
    for (let sample = 0; sample < 100; sample++) taught.completed(5000, 100);
    expect([fresh.nextDelayMs(60_000, failures), taught.nextDelayMs(0, failures)]).toEqual([ms, ms]);
  });

  it.each([100, 1000, 10_000, 60_000, 600_000, 10 ** 8])(
    'never waits less than 100 ms or more than 30 s between two polls (%d ms waited)',
    (waited) => {
      for (const schedule of [createPollSchedule(), taughtWith(1), taughtWith(50)]) {
        const delay = schedule.nextDelayMs(waited, 0);
        expect(delay).toBeGreaterThanOrEqual(100);
        expect(delay).toBeLessThanOrEqual(30_000);
      }
    },
  );

  it('needs few polls for a latency that it does not know, and is not late by more than a third', () => {
    for (const latency of [300, 3000, 30_000, 120_000]) {
      const { polls, lateMs } = pollUntil(createPollSchedule(), latency);
      expect(polls).toBeLessThanOrEqual(30);
      expect(lateMs).toBeLessThanOrEqual(Math.max(200, latency * 0.31));
    }
  });

  it('learns: the first poll comes when one in ten messages is completed, few follow', () => {
    const seed = 20_260_101;
    const random = seededRandom(seed);
    const schedule = createPollSchedule();
    const latencies = Array.from({ length: 400 }, () => 20_000 + random() * 20_000);
    const results = latencies.map((latency) => pollUntil(schedule, latency)).slice(100);
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(schedule.nextDelayMs(0, 0), `seed ${seed}`).toBeGreaterThan(15_000);
    expect(mean(results.map(({ polls }) => polls)), `seed ${seed}`).toBeLessThan(6);
    expect(mean(results.map(({ lateMs }) => lateMs)), `seed ${seed}`).toBeLessThan(3000);
  });

  it('follows an API that becomes faster or slower', () => {
    const schedule = createPollSchedule();
    for (let message = 0; message < 200; message++) pollUntil(schedule, 40_000);
    expect(schedule.nextDelayMs(0, 0)).toBeGreaterThan(20_000);
    for (let message = 0; message < 200; message++) pollUntil(schedule, 2000);
    expect(schedule.nextDelayMs(0, 0)).toBeLessThan(3000);
    for (let message = 0; message < 200; message++) pollUntil(schedule, 40_000);
    expect(schedule.nextDelayMs(0, 0)).toBeGreaterThan(20_000);
  });
});

function taughtWith(seenMs: number): PollSchedule {
  const schedule = createPollSchedule();
  for (let sample = 0; sample < 64; sample++) schedule.completed(seenMs, 10);
  return schedule;
}
