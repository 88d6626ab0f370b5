import type { JournalEntry } from '../../test/helpers/journal.js';
import { parseMessageId } from '../../src/simulator/messages.js';
import type { Ledger } from './ledger.js';

export interface PaymentCounts {
  /** Accepted submits. */
  readonly paid: number;
  /** Accepted submits whose message was there to expire: paid, and rightly submitted again. */
  readonly expired: number;
  readonly paidTwice: number;
  readonly counted: number;
  /** Images that were paid twice more often than is counted for them. */
  readonly uncounted: readonly string[];
}

/**
 * Counts the payments. An image is paid twice by each accepted submit beyond the first whose message completes: what
 * expires brings no prompts, and has to be submitted again. Compared image by image: what one image has
 * counted too much makes up for no other.
 */
export function countPayments(journal: readonly JournalEntry[], ledger: Ledger): PaymentCounts {
  const completing = new Map<string, number>();
  let expired = 0;
  for (const { url, messageId } of journal) {
    if (parseMessageId(messageId)?.fate === 'completes') completing.set(url, (completing.get(url) ?? 0) + 1);
    else expired++;
  }
  const twice = [...completing].map(([url, count]) => ({ url, count: count - 1 }));
  let { unnamed } = ledger;
  const isUncounted = ({ url, count }: (typeof twice)[number]) => {
    const missing = Math.max(0, count - ledger.of(url));
    unnamed -= missing;
    return missing > 0 && unnamed < 0;
  };
  return {
    paid: journal.length,
    expired,
    paidTwice: twice.reduce((sum, { count }) => sum + count, 0),
    counted: ledger.total,
    uncounted: twice.filter(isUncounted).map(({ url }) => url),
  };
}
