import type { Progress } from '../run/run-options.js';
import { progressLine } from './progress-line.js';
import { printable } from './text.js';

const PLAIN_EVERY_MS = 10_000;

/**
 * What a person sees on stderr: lines, and below them a progress line that is redrawn in place. Where
 * stderr is no terminal, progress is a plain line every ten seconds.
 */
export class Terminal {
  #drawn = '';
  #plainAt = Date.now();

  constructor(
    private readonly stream: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number },
    private readonly options: { readonly quiet: boolean; readonly progress: boolean },
  ) {}

  /** A line for people; nothing with `--quiet`. */
  say(line: string): void {
    if (!this.options.quiet) this.warn(line);
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
    if (this.stream.isTTY) this.#redraw(text);
    else this.stream.write(`${text}\n`);
  }

  progress(progress: Progress): void {
    if (!this.#isOn) return;
    if (this.stream.isTTY) {
      this.#redraw(progressLine(progress, (this.stream.columns ?? 80) - 1));
      return;
    }
    if (Date.now() - this.#plainAt < PLAIN_EVERY_MS) return;
    this.#plainAt = Date.now();
    this.stream.write(`${progressLine(progress, 500)}\n`);
  }

  /** Takes the progress line away; to be called before anything else writes to the terminal. */
  end(): void {
    this.#erase();
    this.#drawn = '';
  }

  get #isOn(): boolean {
    return this.options.progress && !this.options.quiet;
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
