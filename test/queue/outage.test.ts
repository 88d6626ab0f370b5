import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Outage } from '../../src/shared/queue/outage.js';
import { soon } from '../helpers/wait-until.js';

/** A queue whose operations fail as long as it is set to. */
function setUp() {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const queue = { failsWith: '' };
  const probe = vi.fn(() =>
    queue.failsWith === '' ? Promise.resolve() : Promise.reject(new Error(queue.failsWith)),
  );
  const outage = new Outage({
    classify: (error) => (error instanceof Error && error.message === 'away' ? 'it is away' : undefined),
    probe,
  });
  onTestFinished(() => outage.close());
  const told: string[] = [];
  outage.on((state, reason) => told.push(`${state}: ${reason}`));
  return { queue, outage, probe, told };
}

describe('an outage', () => {
  test('is told once, however many operations fail, and so is its end', async () => {
    const { queue, outage, told } = setUp();
    queue.failsWith = 'away';
    for (let i = 0; i < 5; i++) expect(outage.note(new Error('away'))).toBe(true);
    await vi.advanceTimersByTimeAsync(2000);
    await vi.waitFor(() => expect(told).toEqual(['down: it is away']), soon);
    expect(outage.note(new Error('away'))).toBe(true);
    queue.failsWith = '';
    await vi.advanceTimersByTimeAsync(2000);
    await vi.waitFor(() => expect(told).toEqual(['down: it is away', 'up: it is away']), soon);
    queue.failsWith = 'away';
    outage.note(new Error('away'));
    await vi.advanceTimersByTimeAsync(2000);
    await vi.waitFor(() => expect(told).toHaveLength(3), soon);
  });

  test('that is over within the grace period is not told', async () => {
    const { queue, outage, probe, told } = setUp();
    queue.failsWith = 'away';
    outage.note(new Error('away'));
    await vi.advanceTimersByTimeAsync(500);
    await vi.waitFor(() => expect(probe.mock.calls.length).toBeGreaterThan(1), soon);
    queue.failsWith = '';
    const calls = probe.mock.calls.length;
    await vi.advanceTimersByTimeAsync(500);
    await vi.waitFor(() => expect(probe.mock.calls.length).toBeGreaterThan(calls), soon);
    expect(told).toEqual([]);
  });

  test('is not made of errors that do not pass', () => {
    const { outage, probe } = setUp();
    expect(outage.note(new Error('Missing key'))).toBe(false);
    expect(probe).not.toHaveBeenCalled();
  });

  test('is over when the probe fails for another reason', async () => {
    const { queue, outage, told } = setUp();
    queue.failsWith = 'away';
    outage.note(new Error('away'));
    await vi.advanceTimersByTimeAsync(2000);
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    queue.failsWith = 'NOPERM';
    await vi.advanceTimersByTimeAsync(2000);
    await vi.waitFor(() => expect(told).toHaveLength(2), soon);
  });

  test('is nobody’s business after closing, and trying again does not help then', () => {
    const { queue, outage, probe } = setUp();
    queue.failsWith = 'away';
    outage.close();
    expect(outage.note(new Error('away'))).toBe(false);
    expect(probe).not.toHaveBeenCalled();
  });
});
