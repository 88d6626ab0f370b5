import { describe, expect, it } from 'vitest';
import { Outstanding, type PendingImage } from '../../src/shared/outstanding.js';

const pending = (...rows: string[]): PendingImage<string> => ({
  rows,
  submitsBefore: 0,
  pollsBefore: 0,
  reattached: false,
});
const never = () => new AbortController().signal;

describe('outstanding rows', () => {
  it('count from being read until they are released', () => {
    const outstanding = new Outstanding<string>();
    outstanding.add('a', pending('1', '2'));
    expect(outstanding.attach('a', '3')).toBe(true);
    outstanding.hold(1);
    expect(outstanding.rows).toBe(4);
    expect(outstanding.take('a')?.rows).toEqual(['1', '2', '3']);
    expect([outstanding.rows, outstanding.images.size]).toEqual([4, 0]);
    outstanding.release(3);
    outstanding.release(1);
    expect(outstanding.rows).toBe(0);
  });

  it('cannot wait for an image that is not outstanding, or not any more', () => {
    const outstanding = new Outstanding<string>();
    expect(outstanding.attach('a', '1')).toBe(false);
    outstanding.add('a', pending('1'));
    outstanding.take('a');
    expect(outstanding.attach('a', '2')).toBe(false);
    expect(outstanding.take('a')).toBeUndefined();
    expect(outstanding.rows).toBe(1);
  });

  it('are waited for until enough are released', async () => {
    const outstanding = new Outstanding<string>();
    outstanding.hold(3);
    const asked: number[] = [];
    const waiting = outstanding.until(() => {
      asked.push(outstanding.rows);
      return outstanding.rows < 2;
    }, never());
    outstanding.release(1);
    await Promise.resolve();
    outstanding.release(1);
    expect(await waiting).toBe(true);
    expect(asked[0]).toBe(3);
    expect(asked.at(-1)).toBe(1);
  });

  it('are asked for again by everybody who waits, each time something changes', async () => {
    const outstanding = new Outstanding<string>();
    let ready = false;
    const waiting = [1, 2, 3].map(() => outstanding.until(() => ready, never()));
    ready = true;
    outstanding.wake();
    expect(await Promise.all(waiting)).toEqual([true, true, true]);
  });

  it('misses no change between being asked and waiting', async () => {
    const outstanding = new Outstanding<string>();
    outstanding.hold(1);
    const waiting = outstanding.until(() => outstanding.rows === 0, never());
    outstanding.release(1);
    const startedAt = performance.now();
    expect(await waiting).toBe(true);
    // Without the change it would have looked again a second later.
    expect(performance.now() - startedAt).toBeLessThan(900);
  });

  it('are given up when the signal aborts, at once', async () => {
    const outstanding = new Outstanding<string>();
    const stop = new AbortController();
    const waiting = outstanding.until(() => false, stop.signal);
    stop.abort();
    expect(await waiting).toBe(false);
    expect(await outstanding.until(() => true, stop.signal)).toBe(false);
  });
});
