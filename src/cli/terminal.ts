import { pino } from 'pino';
import { z } from 'zod';
import type { Progress } from '../run/run-options.js';
import { formatDuration } from '../shared/limits.js';
import { type LogLevel, type Logger, createLogger } from '../shared/log.js';
import { count } from '../shared/plural.js';
import { speedText } from '../dashboard/texts.js';
import { listOf, printable, wrapped } from './text.js';

const BAR_WIDTH = 24;
/** A narrower bar shows nothing. */
const NARROWEST_BAR = 6;
const LONGEST_LOG_LINE = 500;

const PLAIN_EVERY_MS = 10_000;

/**
 * What a person sees on stderr: lines, and below them a progress line that is redrawn in place. Where
 * stderr is no terminal, progress is a plain line every ten seconds.
 */
export class Terminal {
  #drawn = '';
  #plainAt = performance.now();
  #trouble: string | undefined;

  /** JSON lines on stderr, but where that is a terminal, lines for whoever sits there. */
  readonly logger: Logger;

  /** @param options `progress` is whether there is progress to show */
  constructor(
    private readonly stream: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number },
    private readonly options: {
      readonly quiet?: boolean | undefined;
      readonly progress?: boolean | undefined;
      readonly logLevel?: LogLevel | undefined;
    },
  ) {
    const { logLevel: level = 'warn' } = options;
    const lines = { write: (line: string) => this.warn(logText(line)) };
    this.logger = stream.isTTY ? pino({ level, base: {}, timestamp: false }, lines) : createLogger(level);
  }

  /** A line for people; nothing with `--quiet`. */
  say(line: string): void {
    if (this.options.quiet !== true) this.warn(line);
  }

  /** A line that is shown even with `--quiet`. Names of files and what comes from queues may be in it. */
  warn(line: string): void {
    this.#erase();
    this.stream.write(`${printable(line, Infinity)}\n`);
    this.#draw(this.#drawn);
  }

  /** Shows what is being done, before there is progress to show. */
  phase(text: string): void {
    if (!this.#isOn) return;
    // On one line: what is drawn over could not be taken away otherwise.
    if (this.stream.isTTY) this.#redraw(text.slice(0, this.#width));
    else this.stream.write(`${text}\n`);
  }

  progress(progress: Progress): void {
    if (!this.#isOn) return;
    if (this.stream.isTTY) {
      this.#redraw(progressLine(progress, this.#width));
      return;
    }
    const isNews = progress.trouble !== undefined && progress.trouble !== this.#trouble;
    this.#trouble = progress.trouble;
    if (!isNews && performance.now() - this.#plainAt < PLAIN_EVERY_MS) return;
    this.#plainAt = performance.now();
    this.stream.write(`${progressLine(progress, 500)}\n`);
  }

  /** Takes the progress line away; to be called before anything else writes to the terminal. */
  end(): void {
    this.#erase();
    this.#drawn = '';
  }

  /** A terminal writes `^C` behind the line: on the next one it would stay, and the line could not be taken away. */
  get #width(): number {
    return (this.stream.columns ?? 80) - '^C'.length - 1;
  }

  get #isOn(): boolean {
    return this.options.progress === true && this.options.quiet !== true;
  }

  #redraw(text: string): void {
    this.#erase();
    this.#drawn = text;
    this.#draw(text);
  }

  #draw(text: string): void {
    if (text !== '' && this.stream.isTTY) this.stream.write(text);
  }

  #erase(): void {
    if (this.#drawn !== '' && this.stream.isTTY) this.stream.write('\r\u001b[2K');
  }
}

/** @param room how many columns there are for it, with the space behind it */
function bar(share: number, room: number): string {
  const width = Math.min(BAR_WIDTH, room - '[] '.length);
  if (width < NARROWEST_BAR) return '';
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}] `;
}

/** Progress on one line, at most `width` columns wide: the bar gives way to the figures. */
export function progressLine(progress: Progress, width: number): string {
  const { settled, totalRows, share } = progress;
  const isCounted = totalRows !== undefined && totalRows > 0;
  const figures = listOf([
    isCounted ? `${count(settled)}/${count(totalRows)}` : `${count(settled)} rows`,
    `${count(progress.described + progress.copied)} described`,
    progress.resumed > 0 && `${count(progress.resumed)} resumed`,
    progress.failed > 0 && `${count(progress.failed)} failed`,
    `${count(progress.inFlight)} in flight`,
    progress.perSecond > 0 && speedText(progress.perSecond),
    progress.cost !== undefined && `${progress.cost.toFixed(2)} spent`,
    share < 1 && `slowed to ${Math.round(share * 100)} % by the API`,
    progress.trouble === undefined &&
      progress.etaMs !== undefined &&
      `${formatDuration(progress.etaMs)} left`,
    progress.trouble !== undefined && `the API cannot be reached: ${printable(progress.trouble)}`,
  ]);
  const line = (isCounted ? bar(settled / totalRows, width - figures.length) : '') + figures;
  return line.length <= width ? line : line.slice(0, Math.max(0, width));
}

const recordSchema = z.looseObject({ level: z.number(), msg: z.string().default('') });

/** A log record as people read it: `warn: the queue reports an error (queue describe, error: no room)`. */
export function logText(line: string): string {
  const record = recordSchema.safeParse(JSON.parse(line)).data;
  if (record === undefined) return printable(line, LONGEST_LOG_LINE);
  const { level, msg, ...fields } = record;
  const about = Object.entries(fields).map(([name, value]) => `${name} ${textOf(value)}`);
  const label = pino.levels.labels[level] ?? 'log';
  return printable(`${label}: ${msg}${about.length === 0 ? '' : ` (${about.join(', ')})`}`, LONGEST_LOG_LINE);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
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
