import { type FileHandle, open } from 'node:fs/promises';
import { sleep } from '../../src/shared/waiting.js';

const LOOK_EVERY_MS = 3;
const MESSAGE_ID = /sim-[\w-]+(?=,)/g;

/** Watches an output grow: when each message was first seen in it. */
export class OutputTail {
  readonly #seenAt = new Map<string, number>();
  readonly #ended = new AbortController();
  readonly #watching: Promise<void>;

  constructor(private readonly path: string) {
    this.#watching = this.#watch();
  }

  /** Looks a last time. @returns epoch milliseconds by message id */
  async end(): Promise<ReadonlyMap<string, number>> {
    this.#ended.abort();
    await this.#watching;
    return this.#seenAt;
  }

  async #watch(): Promise<void> {
    let file: FileHandle | undefined;
    let text = '';
    let place = 0;
    const buffer = Buffer.alloc(1 << 20);
    let hasMore = true;
    while ((await sleep(LOOK_EVERY_MS, this.#ended.signal)) || hasMore) {
      // It is created by the run that is being watched.
      file ??= await open(this.path).catch(() => undefined);
      const { bytesRead } = (await file?.read(buffer, 0, buffer.length, place)) ?? { bytesRead: 0 };
      place += bytesRead;
      text = this.#note(text + buffer.toString('utf8', 0, bytesRead));
      hasMore = bytesRead > 0;
    }
    await file?.close();
  }

  /** @returns what belongs to a record that is not whole yet */
  #note(text: string): string {
    const now = Date.now();
    for (const [id] of text.matchAll(MESSAGE_ID)) if (!this.#seenAt.has(id)) this.#seenAt.set(id, now);
    return text.slice(text.lastIndexOf('\n') + 1);
  }
}
