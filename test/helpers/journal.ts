import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';

const entrySchema = z.object({ time: z.number(), url: z.string(), messageId: z.string() });

/** One accepted submit of a simulator; `time` in epoch milliseconds. */
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
