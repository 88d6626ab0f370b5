import { type Dialect, dialectFor } from '../describe-api/dialects/index.js';
import { UsageError } from '../shared/errors.js';
import { NOTHING_SPENT, type Spent } from '../shared/run-spending.js';
import type { Prices, RunOptions, RunStop } from './run-options.js';

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
  prices: { perMillionIn, perMillionOut, perImage } = {},
  maxCost,
  ...api
}: Pick<RunOptions, 'prices' | 'maxCost' | 'api' | 'dialect'>): void {
  const perToken = perMillionIn ?? perMillionOut;
  if (maxCost !== undefined && (perToken ?? perImage) === undefined)
    throw new UsageError('--max-cost needs prices: --price-in and --price-out, or --price');
  const { name, takesModel }: Dialect = dialectFor(api);
  if (takesModel !== true && perToken !== undefined)
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
