import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import type { DeliveryFault, FailureKind } from './options.js';

/** What happened since the start (accepted submits: since the journal was begun). */
export interface SimulatorStats {
  /** Accepted submits: each of them is paid. */
  readonly paid: number;
  /** The same by URL; empty with `trackUrls: false`. */
  readonly paidByUrl: ReadonlyMap<string, number>;
  /** Calls by kind, whatever they were answered; `submits` are `posts` and `gets`. */
  readonly requests: { readonly posts: number; readonly gets: number; readonly polls: number };
  readonly submits: number;
  readonly polls: number;
  readonly answered401: number;
  readonly answered429: number;
  readonly answered503: number;
  /** Failures that were played, by kind. */
  readonly failures: { readonly [kind in FailureKind]?: number };
  /** Most submits in any second, rate-limited ones included. */
  readonly maxSubmitsInASecond: number;
  readonly inFlight: number;
  readonly maxInFlight: number;
  /** Deliveries that were taken in, and those that were not. */
  readonly webhooksSent: number;
  readonly webhooksFailed: number;
  /** Deliveries that were made to go wrong, by kind, and how many were forged. */
  readonly webhookFaults: { readonly [fault in DeliveryFault | 'forged']?: number };
}

const NOTHING_YET = {
  ...{ paid: 0, posts: 0, gets: 0, polls: 0, webhooksSent: 0, webhooksFailed: 0 },
  ...{ answered401: 0, answered429: 0, answered503: 0 },
};

/** Counts what happens. */
export class StatsKeeper {
  readonly #counts = { ...NOTHING_YET };
  readonly #failures = new Map<FailureKind, number>();
  readonly #webhookFaults = new Map<DeliveryFault | 'forged', number>();
  readonly #paidByUrl = new Map<string, number>();
  /** When the submits of the last second came. */
  readonly #lastSecond: number[] = [];
  #maxSubmitsInASecond = 0;
  #maxInFlight = 0;

  constructor(private readonly trackUrls: boolean) {}

  count(what: keyof typeof NOTHING_YET): void {
    this.#counts[what]++;
  }

  countFailure(kind: FailureKind): void {
    increment(this.#failures, kind);
  }

  countDeliveryFault(fault: DeliveryFault | 'forged'): void {
    increment(this.#webhookFaults, fault);
  }

  countSubmit(how: 'posts' | 'gets'): void {
    this.#counts[how]++;
    const now = performance.now();
    this.#lastSecond.push(now);
    while ((this.#lastSecond[0] ?? now) <= now - 1000) this.#lastSecond.shift();
    this.#maxSubmitsInASecond = Math.max(this.#maxSubmitsInASecond, this.#lastSecond.length);
  }

  /** @param inFlight images in progress, this one included */
  countPaid(url: string, inFlight: number): void {
    this.#counts.paid++;
    if (this.trackUrls) increment(this.#paidByUrl, url);
    this.#maxInFlight = Math.max(this.#maxInFlight, inFlight);
  }

  read(inFlight: number): SimulatorStats {
    const { posts, gets, ...counts } = this.#counts;
    return {
      ...counts,
      paidByUrl: new Map(this.#paidByUrl),
      requests: { posts, gets, polls: counts.polls },
      submits: posts + gets,
      failures: Object.fromEntries(this.#failures),
      maxSubmitsInASecond: this.#maxSubmitsInASecond,
      inFlight,
      maxInFlight: this.#maxInFlight,
      webhookFaults: Object.fromEntries(this.#webhookFaults),
    };
  }
}

function increment<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

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
 * Adds accepted submits to a journal, before they are answered and without a buffer: they are there when the process
 * is killed right after.
 */
export function appendToJournal(path: string, ...entries: readonly JournalEntry[]): void {
  appendFileSync(path, entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
}
