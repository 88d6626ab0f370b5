import { type Dialect, dialectFor } from '../describe-api/dialects/index.js';
import { UsageError } from '../shared/errors.js';
import type { SharedStore } from '../shared/queue/store.js';
import { NOTHING_SPENT, SPENT_FIELDS, type Spent, spentRecordOf } from '../shared/run-spending.js';
import type { RunOptions, RunStop } from './run-options.js';

/** What an API takes, in whatever currency: for a million tokens, and for each answer about an image. */
export interface Prices {
  readonly perMillionIn?: number | undefined;
  readonly perMillionOut?: number | undefined;
  readonly perImage?: number | undefined;
}

/** What a run has spent over all its starts, as the queue knows it, which no kill makes forget anything. */
export class RunSpending {
  private constructor(
    private readonly store: SharedStore,
    private readonly run: string,
    private readonly maxCalls: number | undefined,
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
    if (isKept) {
      const missing = SPENT_FIELDS.map(
        (field) => [field, Math.max(0, before[field] - stored[field])] as const,
      );
      await store.addToFields(spentRecordOf(run), Object.fromEntries(missing));
      await spending.#keepLimit();
    }
    await spending.refresh();
    return spending;
  }

  get spent(): Spent {
    return this.known;
  }

  /** Reads what workers have counted. To a queue that was emptied, what was known before that is added. */
  async refresh(): Promise<void> {
    const { isKept, stored } = await this.#read();
    const { known } = this;
    this.known = isKept ? stored : spentBy((field) => known[field] + stored[field]);
    if (isKept) return;
    await this.store.addToFields(spentRecordOf(this.run), { ...known });
    await this.#keepLimit();
  }

  async #read(): Promise<{ isKept: boolean; stored: Spent }> {
    const fields = await this.store.getFields(spentRecordOf(this.run));
    return { isKept: fields['isKept'] !== undefined, stored: spentBy((field) => Number(fields[field] ?? 0)) };
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

function spentBy(count: (field: keyof Spent) => number): Spent {
  return {
    submits: count('submits'),
    answered: count('answered'),
    unusable: count('unusable'),
    inputTokens: count('inputTokens'),
    outputTokens: count('outputTokens'),
  };
}

/** What so much costs; undefined without prices. */
export function costOf(spent: Omit<Spent, 'submits'>, prices: Prices | undefined): number | undefined {
  if (prices === undefined) return undefined;
  const { perMillionIn = 0, perMillionOut = 0, perImage = 0 } = prices;
  const tokens = (spent.inputTokens * perMillionIn + spent.outputTokens * perMillionOut) / 1e6;
  return Number((tokens + (spent.answered + spent.unusable) * perImage).toFixed(6));
}

/** What so many more images cost, as far as that is known: what those before did, else their price. */
export function estimatedCost(images: number, before: Spent, prices: Prices | undefined): number | undefined {
  const isByTokens = prices?.perMillionIn !== undefined || prices?.perMillionOut !== undefined;
  if (before.answered === 0)
    return isByTokens ? undefined : costOf({ ...NOTHING_SPENT, answered: images }, prices);
  const cost = costOf(before, prices);
  return cost === undefined ? undefined : Number(((cost * images) / before.answered).toFixed(6));
}

/** Why nothing more is to be spent; undefined while more may be. */
export function budgetStop(
  spent: Spent,
  { prices, maxCost = Infinity, maxCalls = Infinity }: Pick<RunOptions, 'prices' | 'maxCost' | 'maxCalls'>,
): RunStop | undefined {
  const cost = costOf(spent, prices) ?? 0;
  if (cost >= maxCost)
    return {
      kind: 'budget',
      reason: `${cost} of --max-cost ${maxCost} are spent: give a higher one to go on`,
    };
  if (spent.submits < maxCalls) return undefined;
  return {
    kind: 'budget',
    reason: `${spent.submits} of --max-calls ${maxCalls} are made: give a higher one to go on`,
  };
}

/**
 * How many images may be under way so that they do not cost more than is left, if they cost what those before did; one,
 * as long as nobody knows what one costs.
 */
export function affordable(
  spent: Spent,
  { prices, maxCost }: Pick<RunOptions, 'prices' | 'maxCost'>,
): number {
  if (maxCost === undefined) return Infinity;
  const ofOne = estimatedCost(1, spent, prices);
  if (ofOne === undefined) return 1;
  const left = maxCost - (costOf(spent, prices) ?? 0);
  return ofOne === 0 ? Infinity : Math.max(1, Math.floor(left / ofOne));
}

/** @throws {UsageError} for a budget that could never be reached, and for prices of tokens where there are none */
export function checkBudget({
  prices,
  maxCost,
  ...api
}: Pick<RunOptions, 'prices' | 'maxCost' | 'api' | 'dialect'>): void {
  const isPriced = Object.values(prices ?? {}).some((price) => price !== undefined);
  if (maxCost !== undefined && !isPriced)
    throw new UsageError('--max-cost needs prices: --price-in and --price-out, or --price');
  const { name, takesModel }: Dialect = dialectFor(api);
  if (takesModel !== true && (prices?.perMillionIn ?? prices?.perMillionOut) !== undefined)
    throw new UsageError(
      `--price-in, --price-out: the ${name} dialect counts no tokens: give --price instead`,
    );
}

/** How many images a run may pay for (`--limit`). What fails was not paid for, and gives its place back. */
export class PayBudget {
  #taken = 0;
  #spent = 0;

  /** @param limit images; Infinity without `--limit` */
  constructor(private readonly limit: number) {}

  /** Takes a place for an image that is to be submitted; false when there is none at the moment. */
  take(): boolean {
    if (this.#taken >= this.limit) return false;
    this.#taken++;
    return true;
  }

  /** The image was described: its place is used up. */
  spend(): void {
    this.#spent++;
  }

  /** The image failed: its place is free again. */
  giveBack(): void {
    this.#taken--;
  }

  get hasRoom(): boolean {
    return this.#taken < this.limit;
  }

  /** True when no place can become free any more. */
  get isSpent(): boolean {
    return this.#spent >= this.limit;
  }
}
