import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished, vi } from 'vitest';

/** Another process that opens an embedded queue; it ends with the test. */
export class EmbeddedProcess {
  /** What it has said so far. */
  readonly lines: string[] = [];
  readonly #exited: Promise<unknown>;

  private constructor(private readonly child: ChildProcess) {
    this.#exited = once(child, 'exit');
    if (child.stdout) createInterface({ input: child.stdout }).on('line', (line) => this.lines.push(line));
    onTestFinished(() => this.kill());
  }

  static start(url: string, queueName = 'q'): EmbeddedProcess {
    const script = join(import.meta.dirname, 'embedded-process.mjs');
    return new EmbeddedProcess(
      spawn(process.execPath, [script, url, queueName], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  tell(command: 'flood' | 'hang' | 'close'): void {
    this.child.stdin?.write(`${command}\n`);
  }

  /** Waits until it has said a number of lines that match. */
  async said(pattern: RegExp, times = 1): Promise<string[]> {
    return await vi.waitFor(
      () => {
        const found = this.lines.filter((line) => pattern.test(line));
        if (found.length < times) throw new Error(`it said ${JSON.stringify(this.lines.slice(-5))}`);
        return found;
      },
      { timeout: 60_000, interval: 5 },
    );
  }

  /** Waits until it ends by itself. */
  async exited(): Promise<number | null> {
    await this.#exited;
    return this.child.exitCode;
  }

  /** Ends it without any chance to clean up. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#exited;
  }
}
