import { wrapped } from './text.js';

interface ScreenStream extends NodeJS.WritableStream {
  readonly columns?: number;
  readonly rows?: number;
}

const ALTERNATE = '\u001b[?1049h';
const NORMAL = '\u001b[?1049l';
const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';
/** A line that is wider than it seems (wide characters) is cut off, and not continued below. */
const WRAP = '\u001b[?7h';
const NO_WRAP = '\u001b[?7l';
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

/**
 * A terminal's alternate screen, redrawn in place: each line is written over the one before, in one write, so that
 * nothing flickers; what was on the terminal is there again when it ends. Lines are broken between words, and what does not
 * fit all the same is cut.
 */
export class Screen {
  #isOn = false;

  constructor(private readonly stream: ScreenStream) {}

  show(texts: readonly string[]): void {
    const { columns = 80, rows = 24 } = this.stream;
    const lines = texts.flatMap((text) => wrapped(text, columns));
    const start = this.#isOn ? '' : ALTERNATE + HIDE_CURSOR + NO_WRAP;
    this.#isOn = true;
    const shown =
      lines.length <= rows ? lines : [...lines.slice(0, rows - 1), `(${lines.length - rows + 1} more lines)`];
    const drawn = shown.map((line) => cut(line, columns) + CLEAR_LINE);
    this.stream.write(start + HOME + drawn.join('\r\n') + CLEAR_BELOW);
  }

  end(): void {
    if (this.#isOn) this.stream.write(WRAP + SHOW_CURSOR + NORMAL);
    this.#isOn = false;
  }
}

function cut(line: string, columns: number): string {
  return line.length <= columns ? line : `${line.slice(0, Math.max(0, columns - 1))}…`;
}
