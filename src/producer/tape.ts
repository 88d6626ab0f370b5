/**
 * Reads ahead in a stream of bytes that can be read only once: what `read` and `head` give is kept, so that
 * each further reading begins at the first byte again, until `rest` takes everything.
 */
export class Tape {
  readonly #source: AsyncIterator<Buffer, void>;
  #kept: Buffer[] = [];
  #failure: { readonly error: unknown } | undefined;

  constructor(source: AsyncIterable<Buffer, void>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** From the first byte. May be ended early, and called again. */
  async *read(): AsyncGenerator<Buffer, void> {
    for (let index = 0; ; index++) {
      const chunk = this.#kept[index] ?? (await this.#pull());
      if (chunk === undefined) return;
      if (index === this.#kept.length) this.#kept.push(chunk);
      yield chunk;
    }
  }

  /** The first bytes, fewer only where there are no more. */
  async head(length: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let missing = length;
    for await (const chunk of this.read()) {
      chunks.push(chunk.subarray(0, missing));
      missing -= chunk.length;
      if (missing <= 0) break;
    }
    return Buffer.concat(chunks);
  }

  /** From the first byte to the last, once: nothing is kept any more. Its end closes the source. */
  async *rest(): AsyncGenerator<Buffer, void> {
    try {
      yield* this.#kept.splice(0);
      for (let chunk = await this.#pull(); chunk !== undefined; chunk = await this.#pull()) yield chunk;
    } finally {
      await this.#source.return?.();
    }
  }

  /** An error comes again whenever the reading gets to its place. */
  async #pull(): Promise<Buffer | undefined> {
    if (this.#failure !== undefined) throw this.#failure.error;
    try {
      const next = await this.#source.next();
      return next.done === true ? undefined : next.value;
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }
}
