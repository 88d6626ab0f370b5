import type { ErrorCode } from '../shared/outcome.js';

/** The closing account of a run; the fields of `--json`. */
export interface Receipt {
  readonly run: string;
  readonly manifest: string;
  readonly output: string;
  readonly failures: string;
  /** `rows = described + resumed + copied + failed + remaining`. */
  readonly rows: number;
  /** Described now. */
  readonly described: number;
  /** Already in the output, or in an earlier one, when the run started. */
  readonly resumed: number;
  /** Written from the outcome of another row with the same image. */
  readonly copied: number;
  readonly failed: number;
  /** Left for the next time. */
  readonly remaining: number;
  /** Rows of the output that the manifest does not have (any more); outside the balance. */
  readonly extra: number;
  /** HTTP calls made for this run. */
  readonly submits: number;
  readonly polls: number;
  /** Images that were in flight since an earlier run, and were not paid for again. */
  readonly reattached: number;
  /** Submits whose answer was lost, so that the image may have been paid for once more. */
  readonly maybePaidTwice: number;
  /** Submits whose answer was lost, and that webhooks have saved from being paid for once more. */
  readonly rescued: number;
  readonly seconds: number;
  /** False when the manifest was not read to its end; `rows` counts what was read then. */
  readonly complete: boolean;
  /** Whether the counts agree with one another and with a recount of the files. */
  readonly balanced: boolean;
}

/** Why a run ended before its manifest did. */
export interface RunStop {
  readonly kind: 'interrupted' | 'cancelled' | 'token' | 'quota' | 'down' | 'failing' | 'fatal';
  /** One line for people. */
  readonly reason: string;
}

const STOP_EXIT_CODES: Readonly<Record<RunStop['kind'], number>> = {
  interrupted: 130,
  cancelled: 130,
  token: 3,
  quota: 3,
  down: 4,
  failing: 4,
  fatal: 1,
};

/** The exit code of a run that has ended, see "Exit codes" in the README. */
export function exitCodeOf(
  receipt: Pick<Receipt, 'balanced'>,
  stop: RunStop | undefined,
  failedByCode: ReadonlyMap<ErrorCode, number>,
  accepted: ReadonlySet<ErrorCode>,
): number {
  if (stop?.kind === 'fatal') return 1;
  if (!receipt.balanced) return 1;
  if (stop !== undefined) return STOP_EXIT_CODES[stop.kind];
  for (const [code, count] of failedByCode) {
    if (count > 0 && !accepted.has(code)) return 2;
  }
  return 0;
}
