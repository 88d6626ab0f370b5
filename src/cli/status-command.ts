import { findRun } from '../service/known-run.js';
import { type ServiceStatus, readServiceStatus } from '../service/views.js';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { createLogger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { sleep } from '../shared/sleep.js';
import { UndoStack } from '../shared/undo.js';
import { type FlagTable, parseFlags } from './flags.js';
import { openSharedQueue } from './redis-queue.js';
import { ACCOUNT_FLAGS, OUTPUT_FLAGS, parseLogLevel } from './run-flags.js';
import { Screen } from './screen.js';
import { listenForSignals } from './signals.js';
import { localTime, runPageLines, statusLines } from './status-text.js';
import { printable, wrapped } from './text.js';

const STATUS_FLAGS = {
  queue: ACCOUNT_FLAGS.queue,
  watch: { takes: 'nothing' },
  json: OUTPUT_FLAGS.json,
  'log-level': OUTPUT_FLAGS['log-level'],
  help: OUTPUT_FLAGS.help,
} as const satisfies FlagTable;

const REDRAW_MS = 1000;
const BLOCK_EVERY_MS = 10_000;
/** A queue that is away is said to be away after so long. */
const READ_DEADLINE_MS = 5000;

/** `bulk-describe status [run]`. @returns 0, or 1 when there is no such run */
export async function statusCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('status', argv, STATUS_FLAGS, env);
  const [run, extra] = flags.positionals;
  if (extra !== undefined) throw new UsageError(`status takes one run, and ${extra} is a second one`);
  const logger = createLogger(parseLogLevel(flags.get('log-level')));
  const undo = new UndoStack();
  const signals = listenForSignals(() => undefined);
  undo.defer(() => signals.dispose());
  try {
    const connection = await openSharedQueue('status', flags.get('queue'), env, { logger });
    undo.defer(() => connection.close());
    const show = flags.has('json') ? jsonOf : linesOf;
    if (flags.has('watch')) {
      const reader = new AbortController();
      // Nobody reads any more: `status --watch | head` ends as other tools do.
      process.stdout.once('error', () => reader.abort());
      const signal = AbortSignal.any([signals.signal, reader.signal]);
      await watch(connection, (status) => show(status, run), signal, flags.has('json'));
      return 0;
    }
    const status = await readOrExplain(connection, signals.signal);
    if (typeof status === 'string') throw new FatalError(status);
    const lines = show(status, run);
    process.stdout.write(`${(flags.has('json') ? lines : fitted(lines)).join('\n')}\n`);
    return 0;
  } finally {
    await undo.release();
  }
}

/** A terminal breaks lines in the middle of words. */
function fitted(lines: readonly string[]): readonly string[] {
  const { isTTY, columns } = process.stdout;
  return isTTY ? lines.flatMap((line) => wrapped(line, columns)) : lines;
}

function linesOf(status: ServiceStatus, run: string | undefined): string[] {
  return run === undefined ? statusLines(status) : runPageLines(findRun(status.runs, run), status);
}

function jsonOf(status: ServiceStatus, run: string | undefined): string[] {
  if (run === undefined) return [JSON.stringify(status)];
  const { runs, ...rest } = status;
  return [JSON.stringify({ ...rest, runs: [findRun(runs, run)] })];
}

/** Redraws each second on a terminal; elsewhere writes a block every ten seconds. Ends with the signal. */
async function watch(
  connection: QueueConnection,
  show: (status: ServiceStatus) => string[],
  signal: AbortSignal,
  isJson: boolean,
): Promise<void> {
  const screen = process.stdout.isTTY && !isJson ? new Screen(process.stdout) : undefined;
  const write = (lines: readonly string[]) => {
    if (screen === undefined) process.stdout.write(`${lines.join('\n')}\n${isJson ? '' : '\n'}`);
    else screen.show(lines);
  };
  try {
    do {
      const status = await readOrExplain(connection, signal);
      if (signal.aborted) return;
      if (typeof status !== 'string') write(show(status));
      else if (isJson) process.stderr.write(`${status}\n`);
      else write([status]);
    } while (await sleep(screen === undefined ? BLOCK_EVERY_MS : REDRAW_MS, signal));
  } finally {
    screen?.end();
  }
}

/** The queue may be away for a while: that is said, and it is looked at again. */
async function readOrExplain(
  connection: QueueConnection,
  signal: AbortSignal,
): Promise<ServiceStatus | string> {
  try {
    const reading = unlessAborted(readServiceStatus(connection), AbortSignal.timeout(READ_DEADLINE_MS));
    return await unlessAborted(reading, signal);
  } catch (error) {
    const why = error instanceof DOMException ? 'no answer in 5 s' : messageOf(error);
    return `${localTime(Date.now())} waiting for ${connection.label}: ${printable(why)}`;
  }
}
