import { mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import { pino } from 'pino';
import { expect, onTestFinished, test, vi } from 'vitest';
import { BusyError, FatalError, UsageError } from '../../src/shared/errors.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { openDatabase } from '../../src/shared/queue/embedded/database.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { embeddedFixture } from '../helpers/queues.js';
import { EmbeddedProcess } from './embedded-process.js';
import { soon } from '../helpers/wait-until.js';

async function fixture() {
  const one = await embeddedFixture();
  onTestFinished(() => one.cleanup());
  return { ...one, directory: one.url.replace('embedded:', '') };
}

async function emptyDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bulk-describe-queue-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

test('a second process is refused, told who has it, and that this needs Redis; one that has closed it ends by itself', async () => {
  const { url, target } = await fixture();
  const first = EmbeddedProcess.start(url);
  await first.said(/^open$/);
  const opening = openQueue(target);
  await expect(opening).rejects.toBeInstanceOf(BusyError);
  await expect(opening).rejects.toThrow(new RegExp(`embedded queue .*pid ${first.pid} .*need Redis`));
  first.tell('close');
  await first.said(/^closed$/);
  await (await openQueue(target)).close();
  expect(await first.exited()).toBe(0);
});

test('a process that is killed loses no job that was acknowledged', async () => {
  const { url, connect } = await fixture();
  const acknowledged: string[] = [];
  for (let round = 0; round < 2; round++) {
    const process = EmbeddedProcess.start(url);
    await process.said(/^open$/);
    process.tell('flood');
    await process.said(/^\d+$/, 60);
    await process.kill();
    acknowledged.push(...process.lines.filter((line) => /^\d+$/.test(line)));
  }
  const queue = (await connect()).queue('q');
  const waiting = new Set(await queue.getRanges(['waiting'], 0, -1));
  expect(acknowledged.filter((id) => !waiting.has(id))).toEqual([]);
});

test('jobs that were active when the process was killed are the first to start, at once', async () => {
  const { url, connect } = await fixture();
  const process = EmbeddedProcess.start(url);
  await process.said(/^open$/);
  process.tell('flood');
  await process.said(/^\d+$/, 10);
  process.tell('hang');
  const active = (await process.said(/^active/, 3)).map((line) => line.slice('active '.length));
  await process.kill();

  const connection = await connect();
  const opened = performance.now();
  const started: { id: string; starts: number; attempts: number; stalled: number }[] = [];
  connection.worker<object, null>(
    'q',
    (job) => {
      const { attemptsStarted: starts, attemptsMade: attempts, stalledCounter: stalled } = job;
      started.push({ id: job.id ?? '', starts, attempts, stalled });
      return Promise.resolve(null);
    },
    {},
  );
  await vi.waitFor(() => expect(started.length).toBeGreaterThan(3), soon);
  // BullMQ alone would find them ten seconds later.
  expect(performance.now() - opened).toBeLessThan(8000);
  const first = started.slice(0, 3).sort((a, b) => Number(a.id) - Number(b.id));
  expect(first).toEqual(active.map((id) => ({ id, starts: 2, attempts: 0, stalled: 1 })));
});

test('a job that took its process down too often fails', async () => {
  const { connect, directory } = await fixture();
  const connection = await connect();
  const job = await connection.queue<object, null>('q').add('x', {});
  await connection.close();
  const database = await openDatabase(join(directory, 'pgdata'));
  await database.query(`UPDATE bullmq.job SET state = 'active', stalled_count = 100`);
  await database.close(() => undefined);

  const again = await connect();
  const never = vi.fn(() => Promise.resolve(null));
  again.worker<object, null>('q', never, {});
  const queue = again.queue<object, null>('q');
  await vi.waitFor(async () => expect(await queue.getJobState(job.id ?? '')).toBe('failed'), soon);
  expect((await queue.getJob(job.id ?? ''))?.failedReason).toBe('job stalled more than allowable limit');
  expect(never).not.toHaveBeenCalled();
});

test(
  'a crash while it is created leaves a directory that can be opened, by this user alone',
  { timeout: 90_000 },
  async () => {
    const directory = join(await emptyDirectory(), 'state', 'bulk-describe');
    const process = EmbeddedProcess.start(`embedded:${directory}`);
    await vi.waitFor(
      async () => {
        const unfinished = (await readdir(directory)).find((name) => name.startsWith('pgdata.new'));
        expect(await readdir(join(directory, unfinished ?? 'none'))).toContain('PG_VERSION');
        // On a busy machine the creation takes most of that before it writes anything.
      },
      { ...soon, timeout: 60_000 },
    );
    await process.kill();
    const onSlow = vi.fn();
    const connection = await openQueue(parseQueueUrl(`embedded:${directory}`, {}), { onSlow });
    expect(onSlow).toHaveBeenCalledOnce();
    await connection.queue<object, null>('q').add('x', {});
    expect((await readdir(directory)).sort()).toEqual(['lock', 'pgdata']);
    // The database's own files are readable for everybody, so what is above them may not be.
    for (const made of [directory, join(directory, 'pgdata')])
      expect(((await stat(made)).mode & 0o777).toString(8)).toBe('700');
    await connection.close();
    expect(await readdir(directory)).toEqual(['pgdata']);
  },
);

test('closing on a disk that takes nothing more is no failure of what was done, and nothing is lost', async () => {
  const { connect, directory } = await fixture();
  const logged: string[] = [];
  const logger = pino({ level: 'debug' }, { write: (line: string) => logged.push(line) });
  const connection = await connect({ logger });
  await connection.queue<object, null>('q').add('x', {});
  // The checkpoint at the end writes there first.
  const [place, aside] = [join(directory, 'pgdata', 'pg_logical'), join(directory, 'aside')];
  await rename(place, aside);
  await connection.close();
  expect(logged).toEqual([expect.stringContaining('is not closed in order')]);
  await rename(aside, place);
  expect(await (await connect()).queue('q').getWaitingCount()).toBe(1);
});

test('closing with jobs that never end takes a few seconds, and they are waiting afterwards', async () => {
  const { connect } = await fixture();
  const connection = await connect();
  await connection.queue<object, null>('q').add('x', {});
  const hang = vi.fn(() => new Promise<null>(() => undefined));
  connection.worker<object, null>('q', hang, {});
  await vi.waitFor(() => expect(hang).toHaveBeenCalledOnce(), soon);
  const began = performance.now();
  await connection.close();
  expect(performance.now() - began).toBeLessThan(20_000);
  expect(await (await connect()).queue('q').getWaitingCount()).toBe(1);
});

test('what cannot be opened is said in one line', async () => {
  const directory = await emptyDirectory();
  await mkdir(join(directory, 'pgdata'));
  await writeFile(join(directory, 'pgdata', 'PG_VERSION'), '99\n');
  const opening = openQueue(parseQueueUrl(`embedded:${directory}`, {}));
  await expect(opening).rejects.toBeInstanceOf(FatalError);
  await expect(opening).rejects.toThrow(/^the embedded queue cannot be opened: .*pgdata is damaged/);
  expect(await readdir(directory)).toEqual(['pgdata']);

  const file = join(directory, 'file');
  await writeFile(file, '');
  await expect(openQueue(parseQueueUrl(`embedded:${file}/queue`, {}))).rejects.toBeInstanceOf(UsageError);
});

test('a worker with room does not ask the queue all the time while no more jobs may be active', async () => {
  const { connect } = await fixture();
  const connection = await connect();
  const queue = connection.queue<object, null>('q');
  await queue.setGlobalConcurrency(1);
  await queue.addBulk(Array.from({ length: 5 }, () => ({ name: 'x', data: {} })));
  let end: (() => void) | undefined;
  const hang = () => new Promise<null>((resolve) => (end = () => resolve(null)));
  const worker = connection.worker<object, null>('q', hang, { concurrency: 5 });
  await vi.waitFor(() => expect(end).toBeDefined(), soon);
  const query = vi.spyOn(PGlite.prototype, 'query');
  onTestFinished(() => query.mockRestore());
  const from = performance.now();
  await vi.waitFor(() => expect(performance.now() - from).toBeGreaterThan(1000), soon);
  expect(query.mock.calls.length).toBeLessThan(150);
  const closing = worker.close();
  end?.();
  await closing;
});
