import { spawn } from 'node:child_process';
import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { RunOutcome } from './run-outcome.js';
import type { RunRequest } from './run-request.js';

/** What `--on-done` is called for. */
export interface EndOfRun {
  readonly request: RunRequest;
  readonly outcome: RunOutcome;
  /** As far as they are known. */
  readonly run: string | undefined;
  readonly output: string | undefined;
}

export interface OnDoneOptions {
  /** For the shell; from the home's own command line, never from a queue. */
  readonly command: string;
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
  /** 60 seconds. */
  readonly deadlineMs?: number | undefined;
}

const DEADLINE_MS = 60_000;

/**
 * Calls the command with the receipt on its stdin: of a run that did not begin, an object with `error`, `manifest` and
 * `output`. What it prints goes to stderr. Never rejects: a command that fails, or does not end in time, is logged.
 */
export async function callOnDone(end: EndOfRun, options: OnDoneOptions): Promise<void> {
  const { logger } = options;
  const about = { run: end.run, output: end.output };
  try {
    const failure = await call(end, options);
    if (failure !== undefined) logger.error(about, `--on-done ${failure}`);
  } catch (error) {
    logger.error({ ...about, error: messageOf(error) }, '--on-done could not be called');
  }
}

/** @returns what went wrong */
function call(end: EndOfRun, options: OnDoneOptions): Promise<string | undefined> {
  const { command, cwd, deadlineMs = DEADLINE_MS } = options;
  const child = spawn(command, {
    shell: true,
    cwd,
    env: environmentOf(end, options.env),
    stdio: ['pipe', 2, 2],
    // A group of its own, so that what the shell has started ends with it.
    detached: true,
  });
  return new Promise((resolve, reject) => {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    }, deadlineMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      if (isLate) resolve(`was ended after ${Math.round(deadlineMs / 1000)} s`);
      else resolve(code === 0 ? undefined : `ended with ${signal ?? `exit code ${code ?? ''}`}`);
    });
    child.stdin?.on('error', () => {
      // A command that does not read its input is none the worse.
    });
    child.stdin?.end(`${JSON.stringify(accountOf(end))}\n`);
  });
}

function accountOf({ request, outcome, output }: EndOfRun): unknown {
  if (outcome.receipt !== undefined) return outcome.receipt;
  return { error: outcome.reason ?? '', manifest: request.manifest, output: output ?? request.output };
}

/** The token is nobody else's business. */
function environmentOf(
  { request, outcome, run, output }: EndOfRun,
  env: NodeJS.ProcessEnv,
): NodeJS.ProcessEnv {
  return {
    ...env,
    DESCRIBE_API_TOKEN: undefined,
    BULK_DESCRIBE_EXIT: String(outcome.exitCode),
    BULK_DESCRIBE_OUTCOME: outcome.outcome,
    BULK_DESCRIBE_RUN: run ?? '',
    BULK_DESCRIBE_OUTPUT: output ?? request.output ?? '',
    BULK_DESCRIBE_SCHEDULE: request.schedule ?? '',
  };
}
