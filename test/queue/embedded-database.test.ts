import { afterEach, describe, expect, test, vi } from 'vitest';
import { Database } from '../../src/shared/queue/embedded/database.js';

/** A database that notes what it is told, and tells whoever listens. */
function fakeDatabase() {
  const statements: string[] = [];
  const params: unknown[][] = [];
  const listeners = new Set<(channel: string, payload: string) => void>();
  let goOn = (): void => undefined;
  const database = new Database(
    {
      async query(text, given = []) {
        statements.push(text);
        params.push(given);
        if (text === 'HOLD') await new Promise<void>((resolve) => (goOn = resolve));
        if (text === 'FAIL') throw new Error('told to fail');
        return { rows: [], fields: [] };
      },
      exec: () => Promise.resolve([]),
      onNotification(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
      close: () => Promise.resolve(),
    },
    () => Promise.resolve(undefined),
  );
  const notify = (channel: string, payload: string) => {
    for (const listener of listeners) listener(channel, payload);
  };
  return { database, statements, params, listeners, notify, goOn: () => goOn() };
}

describe('the one database', () => {
  test('runs statements in the order they were asked for, and goes on after a failure', async () => {
    const { database, statements } = fakeDatabase();
    const results = await Promise.allSettled(['1', 'FAIL', '2', '3'].map((text) => database.query(text)));
    expect(statements).toEqual(['1', 'FAIL', '2', '3']);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
  });

  test('a client that listens for good is in nobody else’s way', async () => {
    const { database, statements } = fakeDatabase();
    const listening = await database.connect();
    await listening.query('LISTEN bullmq_jobs');
    await database.query('other');
    expect(statements).toEqual(['LISTEN bullmq_jobs', 'other']);
  });

  test('a client hears notifications until it is released', async () => {
    const { database, notify, listeners } = fakeDatabase();
    const client = await database.connect();
    const heard: unknown[] = [];
    client.on('notification', (message) => heard.push(message));
    notify('bullmq_jobs', 'q');
    client.release();
    notify('bullmq_jobs', 'q');
    expect(heard).toEqual([{ channel: 'bullmq_jobs', payload: 'q' }]);
    expect(listeners.size).toBe(0);
  });

  test('gives others their turn between two statements', async () => {
    const { database } = fakeDatabase();
    let turns = 0;
    const count = () => {
      turns++;
      timer = setImmediate(count);
    };
    let timer = setImmediate(count);
    for (let i = 0; i < 20; i++) await database.query('busy');
    clearImmediate(timer);
    expect(turns).toBeGreaterThanOrEqual(19);
  });
});

describe('after a jump of the clock', () => {
  const DAY_MS = 86_400_000;
  afterEach(() => vi.restoreAllMocks());

  /** What the database is told, the last of it by whoever asked before the jump and had to wait. */
  async function jumpWhileWaiting(jumpMs: number, given: unknown[]) {
    const { database, statements, params, goOn } = fakeDatabase();
    database.followClock();
    const held = database.query('HOLD', []);
    await vi.waitFor(() => expect(statements).toEqual(['HOLD']));
    statements.length = 0;
    const waiting = database.query('asked before', given);
    const now = Date.now;
    vi.spyOn(Date, 'now').mockImplementation(() => now() + jumpMs);
    goOn();
    await Promise.all([held, waiting]);
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
