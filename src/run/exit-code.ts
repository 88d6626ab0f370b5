import type { ErrorCode } from '../shared/jobs.js';
import type { Receipt, RunStop } from './run-options.js';

const STOP_EXIT_CODES: Readonly<Record<RunStop['kind'], number>> = {
  interrupted: 130,
  cancelled: 130,
  token: 3,
  quota: 3,
  'set-up': 3,
  down: 4,
  failing: 4,
  budget: 4,
  fatal: 1,
};

/** The exit code of a run that has ended, see "Exit codes" in the README. */
export function exitCodeOf(
  receipt: Pick<Receipt, 'balanced'>,
  stop: RunStop | undefined,
  failedByCode: ReadonlyMap<ErrorCode, number>,
  accepted: ReadonlySet<ErrorCode>,
): number {
  if (!receipt.balanced) return 1;
  if (stop !== undefined) return STOP_EXIT_CODES[stop.kind];
  return [...failedByCode.keys()].some((code) => !accepted.has(code)) ? 2 : 0;
}
