import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { isSystemError, messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { RequestNames, RunOutcome } from './run-request.js';
import { sleep } from '../shared/waiting.js';

/** What `--on-done` is called for: run and output as far as they are known. */
interface EndOfRun {
  /** Of what its job holds; nothing where that is no request. */
  readonly names: Partial<RequestNames>;
  readonly outcome: RunOutcome;
  readonly run: string | undefined;
  readonly output: string | undefined;
}

interface OnDoneOptions {
  /** For the shell; from the server's own command line, never from a queue. */
  readonly command: string;
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
  /** 60 seconds. */
  readonly deadlineMs?: number | undefined;
  /** Aborts when the server is to end: the command has `stopDeadlineMs` from then on, 10 seconds. */
  readonly signal?: AbortSignal | undefined;
  readonly stopDeadlineMs?: number | undefined;
}

const DEADLINE_MS = 60_000;
const LONGEST_NAME = 4096;
const STOP_DEADLINE_MS = 10_000;
/** From the request to end to the end. */
const GRACE_MS = 2000;

/**
 * Calls the command with the receipt on its stdin: of a run that did not begin, an object with `error`, `manifest` and
 * `output`. What it prints goes to stderr. Never rejects: a command that fails, or does not end in time, is logged.
 */
export async function callOnDone(end: EndOfRun, options: OnDoneOptions): Promise<void> {
  const failure = await call(end, options).catch(
    (error: unknown) => `could not be called: ${messageOf(error)}`,
  );
  if (failure === undefined) return;
  options.logger.error({ run: end.run, output: end.output }, `--on-done ${failure}`);
}

/** @returns what went wrong */
async function call(end: EndOfRun, options: OnDoneOptions): Promise<string | undefined> {
  const { command, cwd } = options;
  const env = environmentOf(end, options.env);
  // A group of its own, so that what the shell has started ends with it.
  const child = spawn(command, { shell: true, cwd, env, stdio: ['pipe', 2, 2], detached: true });
  const over = new AbortController();
  const ended = once(child, 'exit').finally(() => over.abort());
  // A command that does not read its input is none the worse.
  child.stdin?.on('error', () => undefined);
  const { names, outcome, output } = end;
  const about = { error: outcome.reason ?? '', manifest: names.manifest, output: output ?? names.output };
  child.stdin?.end(`${JSON.stringify(outcome.receipt ?? about)}\n`);
  const [late] = await Promise.all([endInTime(child.pid, options, over.signal), ended]);
  const { exitCode, signalCode } = child;
  if (late !== undefined || exitCode === 0) return late;
  return `ended with ${signalCode ?? `exit code ${exitCode ?? ''}`}`;
}

/**
 * Ends a command that takes too long, with what it has started: first in a way that it can answer.
 * @param over aborts when it has ended by itself
 * @returns why it had to be ended
 */
async function endInTime(
  pid: number | undefined,
  options: OnDoneOptions,
  over: AbortSignal,
): Promise<string | undefined> {
  const { signal = over, deadlineMs = DEADLINE_MS, stopDeadlineMs = STOP_DEADLINE_MS } = options;
  const startedAt = performance.now();
  let late = `was ended after ${Math.round(deadlineMs / 1000)} s`;
  if (!(await sleep(deadlineMs, AbortSignal.any([over, signal])))) {
    const left = Math.max(0, Math.min(stopDeadlineMs, startedAt + deadlineMs - performance.now()));
    if (!(await sleep(left, over))) return undefined;
    late = `was ended, since the server ends and it went on for ${Math.round(left / 1000)} s more`;
  }
  endGroup(pid, 'SIGTERM');
  if (await sleep(GRACE_MS, over)) endGroup(pid, 'SIGKILL');
  return late;
}

function endGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(-pid, signal);
  } catch (error) {
    // It has ended in this moment.
    if (!isSystemError(error) || error.code !== 'ESRCH') throw error;
  }
}

/** The token is nobody else's business. */
function environmentOf({ names, outcome, run, output }: EndOfRun, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return {
    ...env,
    DESCRIBE_API_TOKEN: undefined,
    BULK_DESCRIBE_EXIT: String(outcome.exitCode),
    BULK_DESCRIBE_OUTCOME: outcome.outcome,
    BULK_DESCRIBE_RUN: run ?? '',
    BULK_DESCRIBE_OUTPUT: asVariable(output ?? names.output),
    BULK_DESCRIBE_SCHEDULE: asVariable(names.schedule),
  };
}

/** An environment holds no NUL, and no text of whatever length: such a name could not be a file's. */
function asVariable(text = ''): string {
  return text.replaceAll('\0', '\uFFFD').slice(0, LONGEST_NAME);
}
