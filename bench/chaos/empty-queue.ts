import { rmSync } from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { onAbandon } from './abandon.js';

/** An empty embedded queue to copy, since making one takes seconds. */
export class EmptyQueue {
  #made: Promise<string> | undefined;

  /** @param given directory of one that is there already; it stays */
  constructor(private readonly given: string | undefined) {}

  /** Copies it to where there is none. */
  async copyTo(directory: string): Promise<void> {
    const from = this.given ?? (await (this.#made ??= make()));
    await cp(from, directory, { recursive: true });
  }

  async remove(): Promise<void> {
    if (this.#made !== undefined) await rm(await this.#made, { recursive: true, force: true });
  }
}

async function make(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bulk-describe-chaos-queue-'));
  onAbandon(() => rmSync(directory, { recursive: true, force: true }));
  const connection = await openQueue(parseQueueUrl(`embedded:${directory}`, {}));
  await connection.close();
  return directory;
}
