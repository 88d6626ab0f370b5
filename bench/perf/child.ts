import { type ChildProcess, fork, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { onAbandon } from '../chaos/abandon.js';

/** The command line that was compiled together with the benchmarks. */
export const CLI = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** With `BENCH_PROFILE=<folder>`, every process that is started leaves a CPU profile there. */
const PROFILE = process.env['BENCH_PROFILE'];
const PROFILE_ARGS = PROFILE === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${PROFILE}`];

export interface CommandEnd {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

/** A process of the program that is measured. */
export interface Command {
  readonly pid: number;
  readonly ended: Promise<CommandEnd>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts a script or the command line with its output collected. */
export function startCommand(
  script: string,
  args: readonly string[],
  nodeArgs: readonly string[] = [],
): Command {
  const startedAt = performance.now();
  const child = spawn(process.execPath, [...PROFILE_ARGS, ...nodeArgs, script, ...args], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], TZ: 'UTC', DESCRIBE_API_TOKEN: 'any' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const texts = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (texts.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (texts.stderr += chunk.toString()));
  const forget = onAbandon(() => child.kill('SIGKILL'));
  const ended = new Promise<CommandEnd>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      forget();
      resolve({ code, ...texts, seconds: (performance.now() - startedAt) / 1000 });
    });
  });
  return { pid: child.pid ?? 0, ended, kill: (signal) => child.kill(signal) };
}

/** A helper process that says something when it is ready, and ends when it is told to. */
export interface Helper {
  readonly pid: number;
  readonly said: string;
  stop(): Promise<void>;
}

/** Starts a script of this folder; its first message is what it says. */
export async function startHelper(
  script: string,
  about: object,
  nodeArgs: readonly string[] = [],
): Promise<Helper> {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const child = fork(path, [JSON.stringify(about)], {
    execArgv: [...PROFILE_ARGS, ...nodeArgs],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const forget = onAbandon(() => child.kill('SIGKILL'));
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const said = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) =>
      resolve(typeof message === 'string' ? message : JSON.stringify(message)),
    );
    child.once('exit', (code) => reject(new Error(`${script} ended with ${code ?? 'a signal'}`)));
  });
  return { pid: child.pid ?? 0, said, stop: () => stop(child, gone, forget) };
}

async function stop(child: ChildProcess, gone: Promise<void>, forget: () => unknown): Promise<void> {
  if (child.connected) child.disconnect();
  await gone;
  forget();
}

/** Processor time of a process so far, its threads' too, in seconds; undefined when it is gone. Linux counts in hundredths. */
export function cpuSecondsOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [, , , , , , , , , , , utime, stime] = stat.slice(stat.lastIndexOf(')') + 1).split(' ');
    return (Number(utime) + Number(stime)) / 100;
  } catch {
    return undefined;
  }
}

/** Resident memory of a process in MB: now, and at its highest; undefined when it is gone. */
export function memoryOf(pid: number): { nowMb: number; peakMb: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const mb = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0) / 1024;
    return { nowMb: mb('VmRSS'), peakMb: mb('VmHWM') };
  } catch {
    return undefined;
  }
}
