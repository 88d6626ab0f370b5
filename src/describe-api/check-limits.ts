import { UsageError } from '../shared/errors.js';

/** @throws {UsageError} unless it can be waited for: above 0; `Infinity` is no limit */
export function checkWait(name: string, ms: number | undefined): void {
  if (ms === undefined || ms > 0) return;
  throw new UsageError(`${name} ${ms}: expected milliseconds above 0`);
}

/** @throws {UsageError} unless so many can be: whole, at least 1; `Infinity` is no limit */
export function checkCount(name: string, count: number | undefined): void {
  if (count === undefined || count === Infinity || (Number.isInteger(count) && count >= 1)) return;
  throw new UsageError(`${name} ${count}: expected a whole number of at least 1`);
}
