import { GroupCommit } from './group-commit.js';
import type { QueueConnection } from './queue/connection.js';
import { retryUntilUp } from './queue/outage.js';

/** What a run has spent over all its starts: calls that were sent, and what their answers have cost. */
export interface Spent {
  readonly submits: number;
  /** Images that ended with a paid answer. */
  readonly answered: number;
  /** Paid answers that could not be used, so that the image was asked for once more. */
  readonly unusable: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export const NOTHING_SPENT: Spent = {
  submits: 0,
  answered: 0,
  unusable: 0,
  inputTokens: 0,
  outputTokens: 0,
};
export const SPENT_FIELDS = ['submits', 'answered', 'unusable', 'inputTokens', 'outputTokens'] as const;

/** The durable record of a run: what it has spent, and `maxCalls`, which is not there without `--max-calls`. */
export function spentRecordOf(run: string): string {
  return `spent:${run}`;
}

interface Spending {
  readonly run: string;
  readonly delta: Partial<Spent>;
  /** A submit that is only made within `--max-calls`; set to whether it may be made. */
  readonly call?: { isAllowed: boolean };
}

/**
 * Workers count here what they spend, each before anything that a kill could cut off: a submit before it is sent, what an
 * answer has cost before it is stored. So what is not confirmed counts, and `--max-calls` holds over all workers and starts.
 */
export class SpendingCounter {
  readonly #adding: GroupCommit<Spending>;
  /** By run, as of the last look. */
  readonly #callsLeft = new Map<string, number>();

  constructor(private readonly connection: Pick<QueueConnection, 'store' | 'noteTrouble'>) {
    this.#adding = new GroupCommit((entries) => this.#addAll(entries), { goesOnAfterFailure: true });
  }

  /** Counts a submit that is about to be sent; false when its run has made as many as it may. */
  async takeCall(run: string): Promise<boolean> {
    const call = { isAllowed: false };
    await this.#adding.commit({ run, delta: { submits: 1 }, call });
    return call.isAllowed;
  }

  /** The submit was not sent after all. */
  giveCallBack(run: string): Promise<void> {
    return this.add(run, { submits: -1 });
  }

  add(run: string, delta: Partial<Spent>): Promise<void> {
    return this.#adding.commit({ run, delta });
  }

  async #addAll(entries: readonly Spending[]): Promise<void> {
    const runs = new Set(entries.map(({ run }) => run));
    await Promise.all(
      [...runs].map((run) =>
        this.#addTo(
          run,
          entries.filter((entry) => entry.run === run),
        ),
      ),
    );
  }

  async #addTo(run: string, entries: readonly Spending[]): Promise<void> {
    const calls = entries.flatMap(({ call }) => call ?? []);
    // Near the limit it is looked at first, so that nothing is counted that is not made.
    if (calls.length > (this.#callsLeft.get(run) ?? 0)) await this.#addFields(run, {});
    const allowed = calls.slice(0, Math.max(0, this.#callsLeft.get(run) ?? 0));
    for (const call of allowed) call.isAllowed = true;
    const made = entries.filter(({ call }) => call?.isAllowed !== false);
    const sumOf = (field: keyof Spent) => made.reduce((sum, { delta }) => sum + (delta[field] ?? 0), 0);
    const sums = SPENT_FIELDS.map((field) => [field, sumOf(field)] as const).filter(([, sum]) => sum !== 0);
    if (sums.length > 0) await this.#addFields(run, Object.fromEntries(sums));
    // Another worker has taken them in this moment.
    const tooMany = Math.min(allowed.length, Math.max(0, -(this.#callsLeft.get(run) ?? 0)));
    for (const call of allowed.slice(allowed.length - tooMany)) call.isAllowed = false;
    if (tooMany > 0) await this.#addFields(run, { submits: -tooMany });
  }

  /** An addition whose answer was lost is made again: then too much is counted, and not too little. */
  async #addFields(run: string, deltas: Readonly<Record<string, number>>): Promise<void> {
    const { store } = this.connection;
    // Nothing is added to the limit: so it is read in the same moment.
    const all = { submits: 0, maxCalls: 0, ...deltas };
    const sums = await retryUntilUp(this.connection, () => store.addToFields(spentRecordOf(run), all));
    const { submits = 0, maxCalls = 0 } = sums;
    this.#callsLeft.set(run, maxCalls > 0 ? maxCalls - submits : Infinity);
  }
}
