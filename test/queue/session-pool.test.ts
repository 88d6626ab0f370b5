import { afterEach, describe, expect, test, vi } from 'vitest';
import { type Session, SessionPool } from '../../src/shared/queue/embedded/session.js';

/** A session that notes what it is told, and tells whoever listens. */
function fakeSession() {
  const statements: string[] = [];
  const params: unknown[][] = [];
  const listeners = new Set<(channel: string, payload: string) => void>();
  const session: Session = {
    async query(text, given = []) {
      statements.push(text);
      params.push([...given]);
      await Promise.resolve();
      if (text === 'FAIL') throw new Error('told to fail');
      return { rows: [], rowCount: 0 };
    },
    onNotification(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => Promise.resolve(),
  };
  const notify = (channel: string, payload: string) => {
    for (const listener of listeners) listener(channel, payload);
  };
  return { pool: new SessionPool(session), statements, params, listeners, notify };
}

describe('the pool over one session', () => {
  test('runs statements in the order they were asked for, and goes on after a failure', async () => {
    const { pool, statements } = fakeSession();
    const results = await Promise.allSettled(['1', 'FAIL', '2', '3'].map((text) => pool.query(text)));
    expect(statements).toEqual(['1', 'FAIL', '2', '3']);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
  });

  test('lets nobody into a transaction, whichever way it ends', async () => {
    const { pool, statements } = fakeSession();
    const client = await pool.connect();
    for (const end of ['COMMIT', 'ROLLBACK']) {
      statements.length = 0;
      await client.query('BEGIN');
      const other = pool.query('other');
      await expect(client.query('FAIL')).rejects.toThrow('told to fail');
      await client.query('mine');
      await client.query(end);
      await other;
      await client.query('after');
      expect(statements).toEqual(['BEGIN', 'FAIL', 'mine', end, 'other', 'after']);
    }
  });

  test('a client that listens for good is in nobody else’s way', async () => {
    const { pool, statements } = fakeSession();
    const listening = await pool.connect();
    await listening.query('LISTEN bullmq_jobs');
    await pool.query('other');
    expect(statements).toEqual(['LISTEN bullmq_jobs', 'other']);
  });

  test('a client hears notifications until it is released', async () => {
    const { pool, notify, listeners } = fakeSession();
    const client = await pool.connect();
    const heard: unknown[] = [];
    client.on('notification', (message) => heard.push(message));
    notify('bullmq_jobs', 'q');
    client.release();
    notify('bullmq_jobs', 'q');
    expect(heard).toEqual([{ channel: 'bullmq_jobs', payload: 'q' }]);
    expect(listeners.size).toBe(0);
  });

  test('gives others their turn between two statements', async () => {
    const { pool } = fakeSession();
    let turns = 0;
    const count = () => {
      turns++;
      timer = setImmediate(count);
    };
    let timer = setImmediate(count);
    for (let i = 0; i < 20; i++) await pool.query('busy');
    clearImmediate(timer);
    expect(turns).toBeGreaterThanOrEqual(19);
  });
});

describe('after a jump of the clock', () => {
  const DAY_MS = 86_400_000;
  afterEach(() => vi.restoreAllMocks());

  /** What the database is told, the last of it by whoever asked before the jump and had to wait. */
  async function jumpWhileWaiting(jumpMs: number, given: unknown[]) {
    const { pool, statements, params } = fakeSession();
    pool.followClock();
    const handOn = await pool.take();
    const waiting = pool.query('asked before', given);
    const now = Date.now;
    vi.spyOn(Date, 'now').mockImplementation(() => now() + jumpMs);
    handOn();
    await waiting;
    return { statements, lastParams: params.at(-1) };
  }

  test.each([-DAY_MS, DAY_MS])(
    'by %d ms, a moment that was asked for before it moves with it',
    async (jumpMs) => {
      const moment = Date.now();
      const { lastParams } = await jumpWhileWaiting(jumpMs, ['queue', moment, 5000, null]);
      expect(lastParams?.[0]).toBe('queue');
      expect(Math.abs(Number(lastParams?.[1]) - (moment + jumpMs))).toBeLessThan(1000);
      expect(lastParams?.slice(2)).toEqual([5000, null]);
    },
  );

  test('what is stored moves first, and workers that wait until a moment before it are woken', async () => {
    const { statements } = await jumpWhileWaiting(-DAY_MS, []);
    const wake = statements.findIndex((text) => text.includes("pg_notify('bullmq_jobs', queue)"));
    const moved = statements.findLastIndex((text) => text.includes('+ $1::bigint'));
    expect(moved).toBeGreaterThanOrEqual(0);
    expect(wake).toBeGreaterThan(moved);
    expect(statements.at(-1)).toBe('asked before');
  });

  test('a clock that is only set a little changes nothing', async () => {
    const moment = Date.now();
    const { statements, lastParams } = await jumpWhileWaiting(200, [moment]);
    expect(statements).toEqual(['asked before']);
    expect(lastParams).toEqual([moment]);
  });
});
