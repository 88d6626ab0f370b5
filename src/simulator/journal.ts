import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { z } from 'zod';

const entrySchema = z.object({ time: z.number(), url: z.string(), messageId: z.string() });

/** One accepted submit; `time` in epoch milliseconds. */
export type JournalEntry = z.infer<typeof entrySchema>;

/**
 * All accepted submits of a journal file, of all processes that wrote to it; none when there is no file.
 * @throws when a line is no entry
 */
export function readJournal(path: string): JournalEntry[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => entrySchema.parse(JSON.parse(line)));
}

/**
 * The file of accepted submits. Entries are written before the submit is answered, without a buffer: they
 * are there when the process is killed right after.
 */
export class Journal {
  private readonly file: number;

  constructor(path: string) {
    this.file = openSync(path, 'a');
  }

  append(entry: JournalEntry): void {
    writeSync(this.file, `${JSON.stringify(entry)}\n`);
  }

  close(): void {
    closeSync(this.file);
  }
}
