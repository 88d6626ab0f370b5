import { UsageError } from '../shared/errors.js';
import type { RunOptions, RunStop } from './run-options.js';

const MINUTE_MS = 60_000;

/**
 * Reads `--finish-by`: `06:00` stays as it is, a date and time becomes one in UTC.
 * @throws {UsageError} when it is neither, or is over
 */
export function parseFinishBy(text: string, source: string, nowMs = Date.now()): string {
  if (/^([01]?\d|2[0-3]):[0-5]\d$/.test(text)) return text.padStart(5, '0');
  const isDate = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?$/.test(text);
  const atMs = isDate ? Date.parse(text.replace(' ', 'T')) : NaN;
  const date = text.slice(0, 10);
  // Date takes the 31st of February for the 3rd of March.
  if (Number.isNaN(atMs) || !new Date(`${date}T00:00Z`).toISOString().startsWith(date))
    throw new UsageError(
      `${source} ${text}: expected a time such as 06:00, or a date and time such as 2026-01-31T06:00`,
    );
  if (atMs <= nowMs) throw new UsageError(`${source} ${text}: that is over`);
  return new Date(atMs).toISOString();
}

/**
 * The moment that `--finish-by` means: of a time, when clocks show it next, or would if they were not set forward past it.
 * @param finishBy as `parseFinishBy` gives it
 * @param timeZone whose clocks; this machine's
 * @returns epoch milliseconds
 */
export function finishTime(finishBy: string, nowMs: number, timeZone?: string): number {
  if (finishBy.length > 5) return Date.parse(finishBy);
  const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', timeZone });
  let before = clock.format(nowMs);
  for (let atMs = nowMs - (nowMs % MINUTE_MS) + MINUTE_MS; ; atMs += MINUTE_MS) {
    const time = clock.format(atMs);
    if (time === finishBy || (before < finishBy && finishBy < time)) return atMs;
    before = time;
  }
}

/** Why nothing more is to be submitted; undefined until it is time. By the clock, whatever becomes of that. */
export function finishStop({ finishBy }: Pick<RunOptions, 'finishBy'>): RunStop | undefined {
  if (finishBy === undefined || Date.now() < Date.parse(finishBy)) return undefined;
  const time = new Date(finishBy).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  return { kind: 'budget', reason: `it is ${time}, by which it was to end (--finish-by)` };
}
