import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { isSystemError } from './errors.js';

/**
 * What tells one process from every other, also from a later one that was given the same pid.
 * `startTime` is field 22 of /proc/<pid>/stat (clock ticks since the boot named by `boot`); both are null
 * where there is no /proc, and then only the pid tells.
 */
export interface ProcessIdentity {
  readonly host: string;
  readonly pid: number;
  readonly startTime: number | null;
  readonly boot: string | null;
}

export async function thisProcess(): Promise<ProcessIdentity> {
  const stat = await readStat(process.pid);
  return { host: hostname(), pid: process.pid, startTime: stat?.startTime ?? null, boot: await readBootId() };
}

/** A new name for a worker of this process, which lists of clients show: its host, its pid, and what makes it unique. */
export function processName(): string {
  // Redis takes no blanks in the names of its clients.
  const host = hostname().replace(/[^\w.-]/g, '_');
  return `${host}:${process.pid}:${randomUUID().slice(0, 8)}`;
}

/**
 * Whether a process of this host still runs. A zombie does not: it runs no code and will not come back.
 * Hazard: a pid means something only within its pid namespace. Two containers that were given one host
 * name and share a folder cannot see each other's processes.
 */
export async function isAlive(other: ProcessIdentity): Promise<boolean> {
  const boot = await readBootId();
  if (boot !== null && other.boot !== null && boot !== other.boot) return false;
  if (!pidExists(other.pid)) return false;
  const stat = await readStat(other.pid);
  if (stat === undefined) return true;
  if (stat.state === 'Z' || stat.state === 'X') return false;
  return other.startTime === null || stat.startTime === other.startTime;
}

export async function isKnownDead({ host, pid }: Pick<ProcessIdentity, 'host' | 'pid'>): Promise<boolean> {
  return host === hostname() && !(await isAlive({ host, pid, startTime: null, boot: null }));
}

function pidExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it is there and belongs to another user.
    return !(isSystemError(error) && error.code === 'ESRCH');
  }
}

async function readStat(pid: number): Promise<{ state: string; startTime: number } | undefined> {
  const text = await readProcFile(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // Field 2 is the command in parentheses, which may hold spaces and parentheses of its own.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const startTime = Number(fields[19]);
  return Number.isFinite(startTime) ? { state: fields[0] ?? '', startTime } : undefined;
}

async function readBootId(): Promise<string | null> {
  return (await readProcFile('/proc/sys/kernel/random/boot_id'))?.trim() ?? null;
}

/** A file of /proc; undefined on systems without it, and when the process is gone. */
async function readProcFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isSystemError(error)) return undefined;
    throw error;
  }
}
