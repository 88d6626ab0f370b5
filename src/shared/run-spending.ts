import { z } from 'zod';
import { GroupCommit, forEachRun } from './group-commit.js';
import type { QueueConnection } from './queue/connection.js';
import { retryUntilUp } from './queue/outage.js';
import type { SharedStore } from './queue/store.js';

const count = z.coerce.number().catch(0);
const spentSchema = z.object({
  submits: count,
  /** Images that ended with a paid answer. */
  answered: count,
  /** Paid answers that could not be used, so that the image was asked for once more. */
  unusable: count,
  inputTokens: count,
  outputTokens: count,
});

/** What a run has spent over all its starts: calls that were sent, and what their answers have cost. */
export type Spent = Readonly<z.infer<typeof spentSchema>>;

const SPENT_FIELDS = spentSchema.keyof().options;
export const NOTHING_SPENT: Spent = spentSchema.parse({});

/** As `maxCalls`: not one more. */
const NO_CALLS = -1;

/** The durable record of a run: what it has spent, and `maxCalls`, which is not there without `--max-calls`. */
function spentRecordOf(run: string): string {
  return `spent:${run}`;
}

/** What a run has spent over all its starts, as the queue knows it, which no kill makes forget anything. */
export class RunSpending {
  private constructor(
    private readonly store: SharedStore,
    private readonly run: string,
    private maxCalls: number | undefined,
    private known: Spent,
  ) {}

  /** @param before what the run file says, which is older where the start before was killed */
  static async open(
    store: SharedStore,
    run: string,
    before: Spent = NOTHING_SPENT,
    maxCalls?: number,
  ): Promise<RunSpending> {
    const spending = new RunSpending(store, run, maxCalls, before);
    const { isKept, stored } = await spending.#read();
    const missingOf = (field: keyof Spent) => Math.max(0, before[field] - (isKept ? stored[field] : 0));
    await spending.#add(Object.fromEntries(SPENT_FIELDS.map((field) => [field, missingOf(field)])));
    return spending;
  }

  get spent(): Spent {
    return this.known;
  }

  /** Reads what workers have counted. To a queue that was emptied, what was known before that is added. */
  async refresh(): Promise<void> {
    const { isKept, stored } = await this.#read();
    if (isKept) this.known = stored;
    else await this.#add({ ...this.known });
  }

  async #add(spent: Record<string, number>): Promise<void> {
    this.known = spentSchema.parse(await this.store.addToFields(spentRecordOf(this.run), spent));
    await this.#keepLimit();
  }

  async #read(): Promise<{ isKept: boolean; stored: Spent }> {
    const fields = await this.store.getFields(spentRecordOf(this.run));
    return { isKept: fields['isKept'] !== undefined, stored: spentSchema.parse(fields) };
  }

  /** No worker makes one more submit for the run, until its next start. */
  close(): Promise<void> {
    this.maxCalls = NO_CALLS;
    return this.#keepLimit();
  }

  #keepLimit(): Promise<void> {
    const maxCalls = this.maxCalls === undefined ? null : String(this.maxCalls);
    return this.store.setFields(spentRecordOf(this.run), { isKept: 'true', maxCalls });
  }

  /** The run file has it, and nothing of the run is in the queue any more. */
  forget(): Promise<void> {
    const fields = [...SPENT_FIELDS, 'isKept', 'maxCalls'].map((field) => [field, null] as const);
    return this.store.setFields(spentRecordOf(this.run), Object.fromEntries(fields));
  }
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

  constructor(private readonly connection: Pick<QueueConnection, 'store' | 'outage'>) {
    this.#adding = new GroupCommit((entries) => forEachRun(entries, (run, own) => this.#addTo(run, own)), {
      goesOnAfterFailure: true,
    });
  }

  /** Counts a submit that is about to be sent; false when its run has made as many as it may. */
  async takeCall(run: string): Promise<boolean> {
    const call = { isAllowed: false };
    await this.#adding.commit({ run, delta: { submits: 1 }, call });
    return call.isAllowed;
  }

  giveCallBack(run: string): Promise<void> {
    return this.add(run, { submits: -1 });
  }

  add(run: string, delta: Partial<Spent>): Promise<void> {
    return this.#adding.commit({ run, delta });
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

  /**
   * An addition whose answer was lost is made again: then too much is counted, and not too little. Of a call that is given back
   * it is too little: one more is made than `--max-calls` allows, where the API and the queue break off at the same moment.
   */
  async #addFields(run: string, deltas: Readonly<Record<string, number>>): Promise<void> {
    const { store } = this.connection;
    // Nothing is added to the limit: so it is read in the same moment.
    const all = { submits: 0, maxCalls: 0, ...deltas };
    const sums = await retryUntilUp(this.connection, () => store.addToFields(spentRecordOf(run), all));
    const { submits = 0, maxCalls = 0 } = sums;
    this.#callsLeft.set(run, maxCalls === 0 ? Infinity : maxCalls - submits);
  }
}
