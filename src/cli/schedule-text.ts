import type { Added, ListedSchedule } from '../service/schedules.js';
import { formatDuration } from '../shared/durations.js';
import { printable } from './text.js';

/** A moment by the clocks of this machine and, where those are others, by those of the schedule's zone. */
export function momentText(atMs: number, timeZone: string): string {
  const here = clockText(atMs, undefined);
  const there = clockText(atMs, timeZone);
  return here === there ? `${here} (${timeZone})` : `${here} (${there} in ${timeZone})`;
}

function clockText(atMs: number, timeZone: string | undefined): string {
  return new Date(atMs).toLocaleString('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'short' });
}

/** What adding a schedule did. */
export function addedLines(name: string, added: Added, timeZone: string): string[] {
  const next = added.nextAt === undefined ? [] : [`next      ${momentText(added.nextAt, timeZone)}`];
  const changes = added.kind === 'changed' ? added.changes.map((change) => `  ${printable(change)}`) : [];
  const what = { added: 'added', unchanged: 'unchanged', changed: 'changed' }[added.kind];
  return [`${what.padEnd(9)} ${name}`, ...changes, ...next];
}

/** The schedules for people. */
export function scheduleLines(
  schedules: readonly ListedSchedule[],
  { isPaused, nowMs }: { isPaused: boolean; nowMs: number },
): string[] {
  if (schedules.length === 0) return ['no schedules: `bulk-describe schedule add` makes one'];
  const paused = isPaused ? ['PAUSED: the runs queue takes up nothing'] : [];
  return [...paused, ...schedules.flatMap((schedule) => linesOf(schedule, nowMs))];
}

function linesOf(schedule: ListedSchedule, nowMs: number): string[] {
  const { name, cron, timeZone, request, nextAt, record } = schedule;
  const { output = '' } = request;
  return [
    `${name}: ${printable(request.manifest)} -> ${printable(output)}`,
    `  cron    ${cron} in ${timeZone}`,
    `  next    ${nextAt === undefined ? 'unknown' : `${momentText(nextAt, timeZone)}${overdueText(nextAt, nowMs)}`}`,
    record.lastAt === undefined
      ? '  last    no run has ended yet'
      : `  last    ${momentText(record.lastAt, timeZone)}: ${printable(record.lastText ?? '')} (exit code ${record.lastExit ?? 0})`,
    ...(record.lastSuccessAt === undefined || record.lastSuccessAt === record.lastAt
      ? []
      : [`  success ${momentText(record.lastSuccessAt, timeZone)}`]),
  ];
}

function overdueText(nextAt: number, nowMs: number): string {
  const lateMs = nowMs - nextAt;
  return lateMs > 5000 ? `, overdue for ${formatDuration(lateMs)}` : '';
}

/** A schedule for programs: an object of `schedule list --json`. Times are ISO 8601, UTC. */
export function scheduleJson(schedule: ListedSchedule, isPaused: boolean): Record<string, unknown> {
  const { name, cron, timeZone, request, nextAt, record } = schedule;
  return {
    // The request names the schedule as well; here it is not to be told twice.
    ...{ ...request, schedule: undefined },
    name,
    cron,
    timeZone,
    next: isoText(nextAt),
    paused: isPaused,
    last:
      record.lastAt === undefined
        ? null
        : { at: isoText(record.lastAt), exitCode: record.lastExit, text: record.lastText },
    lastSuccess: isoText(record.lastSuccessAt),
  };
}

function isoText(atMs: number | undefined): string | null {
  return atMs === undefined ? null : new Date(atMs).toISOString();
}
