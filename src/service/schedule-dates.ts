import { basename, dirname } from 'node:path';
import { getNextMillis } from 'bullmq';
import { z } from 'zod';
import { UsageError, messageOf } from '../shared/errors.js';
import type { RunRequest } from './run-request.js';

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

/** What stands for the date in an output's name. */
const DATE = '{date}';

/** Whether an output's name begins a new file each day. */
export function isDated(output: string): boolean {
  return output.includes(DATE);
}

/**
 * Checks the output of a schedule.
 * @throws {UsageError} when the date is in a folder's name, or there twice
 */
export function checkDatedOutput(output: string): void {
  if (!isDated(output)) return;
  const inName = basename(output).split(DATE).length - 1;
  if (inName === 1 && !isDated(dirname(output))) return;
  throw new UsageError(
    `-o ${output}: ${DATE} can be there once, in the file's name, since the files of all nights are looked for in one folder`,
  );
}

/**
 * The day in a time zone, as YYYY-MM-DD.
 * @param atMs epoch milliseconds
 * @param timeZone an IANA name such as `Europe/Prague`
 */
export function localDate(atMs: number, timeZone: string): string {
  // Swedish dates are written so.
  return new Date(atMs).toLocaleDateString('sv-SE', { timeZone });
}

/** Fixes the moment in which a scheduled run has begun, and its date with it; one that has begun stays as it is. */
export function beginRequest(request: RunRequest, nowMs: number): RunRequest {
  const { output, timeZone = 'UTC' } = request;
  if (request.begunAt !== undefined) return request;
  if (output === undefined || !isDated(output)) return { ...request, begunAt: nowMs };
  const dated = output.replace(DATE, localDate(nowMs, timeZone));
  return { ...request, begunAt: nowMs, output: dated, outputPattern: output };
}

/**
 * Of the files in an output's folder, those that are the same output with another date.
 * @param own the name of the one that is written now
 * @returns names in the order of their dates
 */
export function otherDates(pattern: string, own: string, names: readonly string[]): string[] {
  const [before = '', after = ''] = basename(pattern).split(DATE);
  return names
    .filter((name) => name !== basename(own) && name.startsWith(before) && name.endsWith(after))
    .filter((name) => z.iso.date().safeParse(name.slice(before.length, name.length - after.length)).success)
    .sort();
}
