import { z } from 'zod';
import type { ProgramEnd } from './program.js';

const count = z.int().nonnegative();
const receiptSchema = z.object({
  rows: count,
  described: count,
  resumed: count,
  copied: count,
  failed: count,
  remaining: count,
  maybePaidTwice: count,
  balanced: z.boolean(),
});

/** What the receipts of a round's processes say. */
export class Receipts {
  /** Sum of the submits that may have been paid for in vain. */
  maybePaidTwice = 0;
  /** Processes that ended without one. */
  missing = 0;
  readonly unbalanced: string[] = [];
  /** That of the last process, if it has left one. */
  last: z.infer<typeof receiptSchema> | undefined;

  /** Takes the receipt that a process has printed, if it has. */
  note(name: string, { stdout }: ProgramEnd): void {
    this.last = undefined;
    if (stdout === '') {
      this.missing++;
      return;
    }
    const receipt = receiptSchema.parse(JSON.parse(stdout));
    const { rows, described, resumed, copied, failed, remaining, maybePaidTwice, balanced } = receipt;
    this.maybePaidTwice += maybePaidTwice;
    this.last = receipt;
    if (!balanced || rows !== described + resumed + copied + failed + remaining) this.unbalanced.push(name);
  }
}
