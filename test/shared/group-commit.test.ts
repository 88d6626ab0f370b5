import { describe, expect, test } from 'vitest';
import { GroupCommit } from '../../src/shared/group-commit.js';

/** A disk that takes as long as a test wants. */
class SlowDisk {
  readonly groups: number[][] = [];
  readonly #ends: ((error?: Error) => void)[] = [];

  readonly flush = (entries: readonly number[]): Promise<void> => {
    this.groups.push([...entries]);
    return new Promise((resolve, reject) => {
      this.#ends.push((error) => (error === undefined ? resolve() : reject(error)));
    });
  };

  /** Ends the flush that has waited longest. */
  async end(error?: Error): Promise<void> {
    const end = this.#ends.shift();
    if (end === undefined) throw new Error('nothing is being flushed');
    end(error);
    await turn();
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('group commit', () => {
  test('flushes what came in one turn together, and what comes meanwhile with the next flush', async () => {
    const disk = new SlowDisk();
    const commit = new GroupCommit(disk.flush);
    const first = [commit.commit(1), commit.commit(2)];
    await turn();
    const second = [commit.commit(3), commit.commit(4), commit.commit(5)];
    await turn();
    expect(disk.groups).toEqual([[1, 2]]);
    await disk.end();
    await Promise.all(first);
    expect(disk.groups).toEqual([
      [1, 2],
      [3, 4, 5],
    ]);
    await disk.end();
    await Promise.all(second);
  });

  test('resolves no entry before its flush has ended', async () => {
    const disk = new SlowDisk();
    const commit = new GroupCommit(disk.flush);
    const done: string[] = [];
    void commit.commit(1).then(() => done.push('first'));
    await turn();
    void commit.commit(2).then(() => done.push('second'));
    await turn();
    expect(done).toEqual([]);
    await disk.end();
    expect(done).toEqual(['first']);
    await disk.end();
    expect(done).toEqual(['first', 'second']);
  });

  test('accepts nothing after a flush has failed: neither what waits nor what comes', async () => {
    const disk = new SlowDisk();
    const commit = new GroupCommit(disk.flush);
    const full = new Error('no space left');
    const outcomes = [commit.commit(1), commit.commit(2)].map((entry) =>
      entry.catch((error: unknown) => error),
    );
    await turn();
    const waiting = commit.commit(3).catch((error: unknown) => error);
    await disk.end(full);
    expect(await Promise.all([...outcomes, waiting])).toEqual([full, full, full]);
    await expect(commit.commit(4)).rejects.toBe(full);
    expect(disk.groups).toEqual([[1, 2]]);
  });

  test('is settled when nothing is left to flush, whether that went well or not', async () => {
    const disk = new SlowDisk();
    const commit = new GroupCommit(disk.flush);
    await commit.settled();
    const outcome = commit.commit(1).catch((error: unknown) => error);
    await turn();
    const last = commit.commit(2).catch((error: unknown) => error);
    let isSettled = false;
    const settled = commit.settled().then(() => (isSettled = true));
    await turn();
    expect(isSettled).toBe(false);
    await disk.end(new Error('broken'));
    await settled;
    expect(await outcome).toBeInstanceOf(Error);
    expect(await last).toBeInstanceOf(Error);
  });

  test('flushes no more entries at once than it may', async () => {
    const disk = new SlowDisk();
    const commit = new GroupCommit(disk.flush, { maxEntries: 2 });
    const all = [1, 2, 3, 4, 5].map((entry) => commit.commit(entry));
    await turn();
    expect(disk.groups).toEqual([[1, 2]]);
    for (let flushes = 0; flushes < 3; flushes++) await disk.end();
    await Promise.all(all);
    expect(disk.groups).toEqual([[1, 2], [3, 4], [5]]);
  });

  test('goes on after a failed flush where it is told to', async () => {
    const disk = new SlowDisk();
    const commit = new GroupCommit(disk.flush, { goesOnAfterFailure: true });
    const first = commit.commit(1).catch((error: unknown) => error);
    await turn();
    const second = commit.commit(2);
    await disk.end(new Error('down'));
    expect(await first).toEqual(new Error('down'));
    await disk.end();
    await second;
    expect(disk.groups).toEqual([[1], [2]]);
  });
});
