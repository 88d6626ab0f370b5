import type { FileHandle } from 'node:fs/promises';

const GROUP_CHARACTERS = 1 << 18;

/** Writes many small texts to a file in few large writes. */
export class GroupedWriter {
  #group = '';

  constructor(private readonly handle: FileHandle) {}

  async write(text: string): Promise<void> {
    this.#group += text;
    if (this.#group.length >= GROUP_CHARACTERS) await this.end();
  }

  /** Writes what is left. */
  async end(): Promise<void> {
    const group = this.#group;
    this.#group = '';
    await this.handle.writeFile(group);
  }
}
