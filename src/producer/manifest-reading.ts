import { FatalError } from '../shared/errors.js';
import { UnreadableError, describeUnreadable } from './manifest-bytes.js';
import type { ManifestPass, ManifestSource } from './manifest-source.js';
import type { ManifestRecord, RecordReader } from './record-reader.js';
import type { Tape } from './tape.js';

/** The readings of an open manifest: of a file each its own, of a pipe one that goes on where the sample ended. */
export class ManifestReading {
  readonly #passes = new Set<ManifestPass>();
  #first: { readonly pass: ManifestPass; readonly tape: Tape } | undefined;
  #isClosed = false;

  constructor(
    private readonly source: ManifestSource,
    private readonly reader: RecordReader,
    first: { readonly pass: ManifestPass; readonly tape: Tape },
  ) {
    if (source.replayable) return;
    this.#first = first;
    this.#passes.add(first.pass);
  }

  async *batches(signal?: AbortSignal): AsyncGenerator<readonly ManifestRecord[], void> {
    if (this.#isClosed) return;
    const { pass, bytes } = await this.#start();
    // Its errors are none: closing has no other outcome than the end that the loop waits for.
    const abort = () => void pass.close();
    let line = 0;
    try {
      if (signal?.aborted) return;
      signal?.addEventListener('abort', abort, { once: true });
      for await (const batch of this.reader.read(bytes)) {
        if (signal?.aborted || pass.isClosed) return;
        line = batch.at(-1)?.line ?? line;
        yield batch;
      }
    } catch (error) {
      if (signal?.aborted || pass.isClosed) return;
      if (!(error instanceof UnreadableError)) throw error;
      const place = line === 0 ? '' : ` past the record at line ${line}`;
      throw new FatalError(describeUnreadable(this.source.name, place, error), { cause: error });
    } finally {
      signal?.removeEventListener('abort', abort);
      await pass.close();
      this.#passes.delete(pass);
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#passes].map((pass) => pass.close()));
  }

  async #start(): Promise<{ pass: ManifestPass; bytes: AsyncIterable<Buffer> }> {
    const first = this.#first;
    if (first !== undefined) {
      this.#first = undefined;
      return { pass: first.pass, bytes: first.tape.rest() };
    }
    if (!this.source.replayable) throw new FatalError(`${this.source.name} can be read only once`);
    const pass = await this.source.open();
    this.#passes.add(pass);
    return { pass, bytes: pass.bytes };
  }
}
