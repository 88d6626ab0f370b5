import { findRun } from '../service/known-run.js';
import { type CheckedStatus, type Trouble, readCheckedStatus } from '../service/troubles.js';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { createLogger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import type { OptionsOf } from './options.js';
import { withSharedQueue } from './process.js';
import { checkLines, localTime, runPageLines, statusLines } from './status-text.js';
import { printable, wrapped } from './text.js';

const REDRAW_MS = 1000;
const BLOCK_EVERY_MS = 10_000;
/** A queue that is away is said to be away after so long. */
const READ_DEADLINE_MS = 5000;

/** `bulk-describe status [run]`. @returns 0, or 1 when there is no such run; with `--check` 2 for what a person has to see to */
export function status(options: OptionsOf<'status'>, run: string | undefined): Promise<number> {
  const { json = false, check = false, logLevel = 'warn', queue } = options;
  if (check && (run !== undefined || options.watch === true))
    throw new UsageError(
      '--check looks once at all that goes on at the queue: leave the run and --watch away',
    );
  const show = (seen: CheckedStatus) =>
    json ? [jsonOf(seen, run)] : check ? checkLines(seen, troublesToSeeTo(seen)) : linesOf(seen, run);
  const about = { command: 'status', queue, logger: createLogger(logLevel), isReader: true };
  return withSharedQueue(about, async ({ connection, signal }) => {
    if (options.watch === true) {
      await watch(connection, show, signal, json);
      return 0;
    }
    const seen = await readOrExplain(connection, signal);
    if (typeof seen === 'string') throw new FatalError(seen);
    const { isTTY, columns } = process.stdout;
    // A terminal breaks lines in the middle of words.
    const lines = isTTY && !json ? show(seen).flatMap((line) => wrapped(line, columns)) : show(seen);
    process.stdout.write(`${lines.join('\n')}\n`);
    return check && troublesToSeeTo(seen).length > 0 ? 2 : 0;
  });
}

/** What does not end by itself. */
function troublesToSeeTo({ troubles }: CheckedStatus): Trouble[] {
  return troubles.filter(({ until }) => until === undefined);
}

function linesOf(status: CheckedStatus, run: string | undefined): string[] {
  return run === undefined ? statusLines(status) : runPageLines(findRun(status.runs, run), status);
}

function jsonOf(status: CheckedStatus, run: string | undefined): string {
  // `schedule list --json` has the schedules.
  const runs = run === undefined ? status.runs : [findRun(status.runs, run)];
  return JSON.stringify({ ...status, runs, schedules: undefined });
}

/** Redraws each second on a terminal; elsewhere writes a block every ten seconds. Ends with the signal. */
async function watch(
  connection: QueueConnection,
  show: (status: CheckedStatus) => string[],
  interrupted: AbortSignal,
  isJson: boolean,
): Promise<void> {
  const reader = new AbortController();
  // Nobody reads any more: `status --watch | head` ends as other tools do.
  process.stdout.once('error', () => reader.abort());
  const signal = AbortSignal.any([interrupted, reader.signal]);
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
): Promise<CheckedStatus | string> {
  try {
    const reading = unlessAborted(readCheckedStatus(connection), AbortSignal.timeout(READ_DEADLINE_MS));
    return await unlessAborted(reading, signal);
  } catch (error) {
    const why = error instanceof DOMException ? 'no answer in 5 s' : messageOf(error);
    return `${localTime(Date.now())} waiting for ${connection.label}: ${printable(why)}`;
  }
}

/**
 * The alternate screen, without a cursor. A line that is wider than it seems (wide characters) is cut off, and not
 * continued below.
 */
const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l';
const LEAVE = '\u001b[?7h\u001b[?25h\u001b[?1049l';
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

/**
 * A terminal that is redrawn in place: each line is written over the one before, in one write, so that nothing flickers;
 * what was on it is there again at the end. Lines are broken between words, and what does not fit all the same is cut.
 */
export class Screen {
  #isOn = false;

  constructor(
    private readonly stream: NodeJS.WritableStream & { readonly columns?: number; readonly rows?: number },
  ) {}

  show(texts: readonly string[]): void {
    const { columns = 80, rows = 24 } = this.stream;
    const lines = texts.flatMap((text) => wrapped(text, columns));
    const shown =
      lines.length <= rows ? lines : [...lines.slice(0, rows - 1), `(${lines.length - rows + 1} more lines)`];
    const drawn = shown.map((line) => printable(line, columns) + CLEAR_LINE);
    this.stream.write((this.#isOn ? '' : ENTER) + HOME + drawn.join('\r\n') + CLEAR_BELOW);
    this.#isOn = true;
  }

  end(): void {
    if (this.#isOn) this.stream.write(LEAVE);
    this.#isOn = false;
  }
}
