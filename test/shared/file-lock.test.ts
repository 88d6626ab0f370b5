import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { BusyError, UsageError } from '../../src/shared/errors.js';
import { acquireFileLock } from '../../src/shared/file-lock.js';
import { thisProcess } from '../../src/shared/process-identity.js';
import { LockProcess, compileLock } from './lock-process.js';

const what = { what: 'this output' };
let folder: string;
let script: string;
let path: string;
let count = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bulk-describe-lock-'));
  script = await compileLock(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));
beforeEach(() => (path = join(folder, `locks-${count++}.lock`)));

/** Files that have to do with the lock of this test. */
async function leftovers(): Promise<string[]> {
  const name = path.slice(folder.length + 1);
  return (await readdir(folder)).filter((file) => file.startsWith(name));
}

async function writeOwner(owner: object): Promise<void> {
  const valid = { ...(await thisProcess()), since: '2024-01-01T00:00:00.000Z', command: 'bulk-describe run' };
  await writeFile(path, JSON.stringify({ ...valid, ...owner }));
}

/** A pid that nobody has: of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = await LockProcess.start(script);
  await child.kill();
  return child.pid;
}

test('says who has it, refuses a second time, and is free after release', async () => {
  const lock = await acquireFileLock(path, what);
  const owner = z
    .object({ host: z.string(), pid: z.number(), since: z.iso.datetime() })
    .parse(JSON.parse(await readFile(path, 'utf8')));
  expect(owner).toMatchObject({ host: hostname(), pid: process.pid });
  expect(Date.parse(owner.since)).toBeGreaterThan(Date.now() - 60_000);
  const again = acquireFileLock(path, what);
  await expect(again).rejects.toThrow(BusyError);
  await expect(again).rejects.toThrow(`this process already has this output: pid ${process.pid}`);
  await lock.release();
  await lock.release();
  expect(await leftovers()).toEqual([]);
  await (await acquireFileLock(path, what)).release();
});

test('that cannot be removed any more costs nobody what he was about to say', async () => {
  const within = join(folder, `within-${count}`);
  await mkdir(within);
  const lock = await acquireFileLock(join(within, 'a.lock'), what);
  await rm(within, { recursive: true });
  await writeFile(within, 'no folder any more');
  await expect(lock.release()).resolves.toBeUndefined();
});

test('names the other process that has it, and gets it once that has released it', async () => {
  const other = await LockProcess.start(script);
  expect(await other.acquire(path)).toBe('done');
  const refused = acquireFileLock(path, what);
  await expect(refused).rejects.toMatchObject({ exitCode: 5 });
  await expect(refused).rejects.toThrow(
    `another process has this output: pid ${other.pid} on ${hostname()} since 2`,
  );
  await expect(refused).rejects.not.toThrow('remove');
  expect(await other.release()).toBe('done');
  await (await acquireFileLock(path, what)).release();
  expect(await leftovers()).toEqual([]);
});

test('holds nothing of the command line, and is for its owner alone', async () => {
  const lock = await acquireFileLock(path, what);
  const content: unknown = JSON.parse(await readFile(path, 'utf8'));
  expect(content).toMatchObject({ command: 'bulk-describe' });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  await lock.release();
});

test('tells nothing of the arguments that a lock of an earlier version holds', async () => {
  await writeOwner({
    host: 'elsewhere',
    command: 'main.js serve --queue redis://:hush@redis --on-done hush',
  });
  const refused = acquireFileLock(path, what);
  await expect(refused).rejects.toThrow('on elsewhere since 2024-01-01T00:00:00.000Z; if elsewhere is gone');
  await expect(refused).rejects.not.toThrow('hush');
});

test('takes over from a process that was killed', async () => {
  const other = await LockProcess.start(script);
  await other.acquire(path);
  await other.kill();
  const lock = await acquireFileLock(path, what);
  expect(await readFile(path, 'utf8')).toContain(`"pid":${process.pid},`);
  await lock.release();
  expect(await leftovers()).toEqual([]);
});

test('lets exactly one of eight takers have the lock of a dead process, each time', async () => {
  const takers = await Promise.all(Array.from({ length: 8 }, () => LockProcess.start(script)));
  const pid = await deadPid();
  for (let round = 0; round < 15; round++) {
    path = join(folder, `takers-${round}.lock`);
    await writeOwner({ pid, id: round });
    const answers = await Promise.all(takers.map((taker) => taker.acquire(path)));
    expect(answers.filter((answer) => answer === 'done')).toHaveLength(1);
    expect(
      answers.filter((answer) => answer.startsWith('BusyError: another process has this output')),
    ).toHaveLength(7);
    const winner = takers[answers.indexOf('done')];
    expect(await readFile(path, 'utf8')).toContain(`"pid":${winner?.pid},`);
    await winner?.release();
    expect(await leftovers()).toEqual([]);
  }
});

test('takes over although an earlier taker was killed in the midst of it', async () => {
  const pid = await deadPid();
  await writeOwner({ pid, id: 'first' });
  const first = await readFile(path, 'utf8');
  const claim = `${path}.${createHash('sha256').update(first).digest('hex').slice(0, 16)}`;
  await writeFile(
    claim,
    JSON.stringify({ ...(await thisProcess()), pid, since: '', command: '', id: 'claim' }),
  );
  const lock = await acquireFileLock(path, what);
  await lock.release();
  expect(await leftovers()).toEqual([]);
});

test('waits for nobody while a live taker is about to have it', async () => {
  const pid = await deadPid();
  await writeOwner({ pid });
  const stale = await readFile(path, 'utf8');
  const claim = `${path}.${createHash('sha256').update(stale).digest('hex').slice(0, 16)}`;
  const taker = await LockProcess.start(script);
  await taker.acquire(claim);
  await expect(acquireFileLock(path, what)).rejects.toThrow(
    `another process has this output: pid ${taker.pid}`,
  );
  expect(await readFile(path, 'utf8')).toBe(stale);
});

test('tells a process from an earlier one that had its pid', async () => {
  await writeOwner({ startTime: 1 });
  await (await acquireFileLock(path, what)).release();
  await writeOwner({ boot: 'an earlier boot' });
  await (await acquireFileLock(path, what)).release();
});

test('counts an owner as alive when only its pid is known', async () => {
  await writeOwner({ startTime: null, boot: null });
  await expect(acquireFileLock(path, what)).rejects.toThrow(BusyError);
});

test('never takes over from another host, and says how to remove its lock', async () => {
  await writeOwner({ host: 'elsewhere', pid: 1 });
  const refused = acquireFileLock(path, what);
  await expect(refused).rejects.toThrow(BusyError);
  await expect(refused).rejects.toThrow(
    `pid 1 on elsewhere since 2024-01-01T00:00:00.000Z (bulk-describe run); if elsewhere is gone, remove ${path}`,
  );
});

test.each([
  ['empty', ''],
  ['garbage', 'garbage'],
  ['foreign JSON', '{"pid":"x"}'],
])('takes over a lock file that is %s once it is older than ten seconds', async (_, content) => {
  await writeFile(path, content);
  await expect(acquireFileLock(path, what)).rejects.toThrow(BusyError);
  const old = new Date(Date.now() - 11_000);
  await utimes(path, old, old);
  await (await acquireFileLock(path, what)).release();
  expect(await leftovers()).toEqual([]);
});

test('release leaves the lock of someone else alone', async () => {
  const lock = await acquireFileLock(path, what);
  await writeOwner({ host: 'elsewhere' });
  await lock.release();
  expect(await leftovers()).toHaveLength(1);
});

test('says in one line that no lock file can be made', async () => {
  await writeFile(path, 'a file');
  const refused = acquireFileLock(join(path, 'x.lock'), what);
  await expect(refused).rejects.toThrow(UsageError);
  await expect(refused).rejects.toThrow(`no lock file can be made at ${path}/x.lock`);
});
