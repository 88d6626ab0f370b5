import { type ChildProcess, fork, spawn } from 'node:child_process';
import { on } from 'node:events';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface CliEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<CliEnd>;
  stdout(): string;
  stderr(): string;
}

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Its whole stdin; `null` leaves it open. */
  readonly input?: string | Buffer | null;
}

/** Starts the built command line as a process, with an environment that holds nothing of this one's settings. */
export function startCli(args: readonly string[], options: CliOptions = {}): CliProcess {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: options.cwd,
    env: environment(options),
    stdio: 'pipe',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => {
    // A process that refuses its arguments does not read its input.
  });
  if (options.input !== null) child.stdin.end(options.input ?? '');
  const ended = new Promise<CliEnd>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return { child, ended, stdout: () => stdout, stderr: () => stderr };
}

/** Runs the built command line to its end. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliEnd> {
  return startCli(args, options).ended;
}

function environment({ cwd, env }: CliOptions): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], HOME: cwd, TZ: 'UTC', ...env };
}

const HOST = fileURLToPath(new URL('cli-host.mjs', import.meta.url));
let host: ChildProcess | undefined;
let isBusy = false;

/**
 * The same in a process that has run other commands before, which saves most of what a start costs: for rules of what
 * a command says, pays and writes. What is about the process itself (its end, signals, stdin) takes `runCli`.
 */
export async function runCommand(args: readonly string[], options: CliOptions = {}): Promise<CliEnd> {
  if (options.input !== undefined || isBusy) return runCli(args, options);
  isBusy = true;
  try {
    return await runInHost((host ??= startHost()), args, options);
  } finally {
    isBusy = false;
  }
}

function startHost(): ChildProcess {
  const child = fork(HOST, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], env: {}, execArgv: [] });
  child.stdout?.setEncoding('utf8');
  child.stderr?.setEncoding('utf8');
  child.on('close', () => (host = undefined));
  return child;
}

/** The host marks where the output of a command ends, and says its exit code in that of stdout. */
async function runInHost(child: ChildProcess, args: readonly string[], options: CliOptions): Promise<CliEnd> {
  const { cwd = tmpdir() } = options;
  const read = async (stream: NodeJS.ReadableStream | null, end: RegExp) => {
    if (stream === null) throw new Error('the host has pipes');
    let text = '';
    for await (const chunk of on(stream, 'data', { close: ['close'] })) {
      text += String(chunk);
      const marked = end.exec(text);
      if (marked !== null) return { text: text.slice(0, marked.index), code: Number(marked[1]) };
    }
    throw new Error(`a command ended the process that ran it: ${text}`);
  };
  const outputs = Promise.all([read(child.stdout, /\0(\d+)\0$/), read(child.stderr, /\0$/)]);
  child.send({ main: MAIN, args, cwd, env: environment(options) });
  const [stdout, stderr] = await outputs;
  return { code: stdout.code, signal: null, stdout: stdout.text, stderr: stderr.text };
}
