import { getNextMillis } from 'bullmq';
import { UsageError, messageOf } from '../shared/errors.js';

const EXAMPLE = '"0 2 * * *" is every night at 2:00';

/**
 * Checks `--cron` and `--tz`, so that what is wrong is said before a schedule is kept.
 * @throws {UsageError} when one of them means nothing, or the pattern no time at all
 */
export function checkCron(pattern: string, timeZone: string): void {
  checkTimeZone(timeZone);
  const fields = pattern.trim().split(/\s+/).length;
  if (fields < 5 || fields > 6 || pattern.trim().startsWith('@')) {
    throw new UsageError(
      `--cron "${pattern}" has ${fields === 1 ? '1 field' : `${fields} fields`}: expected minute, hour, day, month and weekday (with seconds before them, if need be): ${EXAMPLE}`,
    );
  }
  if (nextTime(pattern, timeZone, Date.now()) === undefined) {
    throw new UsageError(`--cron "${pattern}" never comes: ${EXAMPLE}`);
  }
}

/** @throws {UsageError} for a time zone that is not known here */
export function checkTimeZone(timeZone: string): void {
  try {
    new Intl.DateTimeFormat('en', { timeZone });
    // Offsets are no zones: they would be wrong for half of the year, and BullMQ does not know them.
    if (/^[A-Za-z]/.test(timeZone)) return;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  throw new UsageError(`--tz ${timeZone}: expected the name of a time zone, such as Europe/Prague or UTC`);
}

/**
 * When a pattern comes next.
 * @param afterMs epoch milliseconds
 * @returns epoch milliseconds; undefined when it never comes
 * @throws {UsageError} when it means nothing
 */
export function nextTime(pattern: string, timeZone: string, afterMs: number): number | undefined {
  try {
    return getNextMillis(afterMs, { pattern, tz: timeZone });
  } catch (error) {
    const reason = messageOf(error);
    const isNever = reason.startsWith('Invalid explicit day of month');
    const what = isNever ? ' never comes: no month of it has such a day' : `: ${reason}`;
    throw new UsageError(`--cron "${pattern}"${what}; ${EXAMPLE}`, { cause: error });
  }
}
