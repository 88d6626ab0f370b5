import { basename, dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { getNextMillis } from 'bullmq';
import { z } from 'zod';
import { UsageError, messageOf } from '../shared/errors.js';
import { formatDuration } from '../shared/limits.js';
import { nearest } from '../shared/nearest.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import type { SharedStore } from '../shared/queue/store.js';
import {
  RUNS_QUEUE,
  RUN_JOB,
  type RunOutcome,
  type RunRequest,
  outcomeText,
  readRequest,
  runRequestSchema,
} from './run-request.js';

/** What is to be run, and when. */
interface Schedule {
  readonly name: string;
  /** Five fields, or six with seconds first; `every 2 hours` of a schedule that was made so by other means. */
  readonly cron: string;
  readonly timeZone: string;
  readonly request: RunRequest;
}

const scheduleRecordSchema = z.object({
  /** When its last run ended or was skipped, epoch milliseconds. */
  lastAt: z.coerce.number().optional(),
  lastExit: z.coerce.number().optional(),
  /** One line for people. */
  lastText: z.string().optional(),
  /** When it last ended with every row described or accepted, epoch milliseconds. */
  lastSuccessAt: z.coerce.number().optional(),
});

/** How a schedule's runs have ended; kept beside its job scheduler, with the time at which that was added. */
type ScheduleRecord = Readonly<z.infer<typeof scheduleRecordSchema>>;

const NO_RECORD = { addedAt: null, lastAt: null, lastExit: null, lastText: null, lastSuccessAt: null };

function recordOf(name: string): string {
  return `schedule:${name}`;
}

/** A schedule as it is kept. */
export interface ListedSchedule extends Schedule {
  /** Epoch milliseconds. In the past while no server is there to take it up: it runs once when one comes. */
  readonly nextAt: number | undefined;
  readonly record: ScheduleRecord;
}

/** @throws {UsageError} for a name that is none */
export function checkScheduleName(name: string): void {
  if (/^[A-Za-z0-9][\w-]{0,63}$/.test(name)) return;
  throw new UsageError(
    `the schedule's name ${JSON.stringify(name)}: expected up to 64 letters, digits, dashes and underscores`,
  );
}

/**
 * Adds a schedule, or changes the one of that name. What is unchanged is left alone: keeping it anew would lose a run
 * that is overdue.
 * @returns `changes`: a line for each thing that is different now
 * @throws {UsageError} when its name, pattern, time zone or output cannot work
 */
export async function addSchedule(connection: QueueConnection, schedule: Schedule) {
  const { name, cron, timeZone } = schedule;
  checkScheduleName(name);
  checkCron(cron, timeZone);
  if (schedule.request.output !== undefined) checkDatedOutput(schedule.request.output);
  // As it comes back from the queue, which keeps JSON.
  const request = readRequest(JSON.parse(JSON.stringify({ ...schedule.request, schedule: name, timeZone })));
  const wanted = { name, cron: cron.trim().split(/\s+/).join(' '), timeZone, request };
  const existing = await findSchedule(connection, name);
  const changes = existing === undefined ? [] : changesBetween(existing, wanted);
  if (existing !== undefined && changes.length === 0)
    return { kind: 'unchanged' as const, nextAt: existing.nextAt, changes };
  if (existing === undefined) {
    await connection.store.setFields(recordOf(name), { addedAt: String(Date.now()) });
  }
  const repeat = { pattern: wanted.cron, tz: timeZone };
  await runsQueue(connection).upsertJobScheduler(name, repeat, { name: RUN_JOB, data: request });
  const nextAt = (await findSchedule(connection, name))?.nextAt;
  return { kind: existing === undefined ? ('added' as const) : ('changed' as const), nextAt, changes };
}

/** All schedules by their names, with how they fared. One that another version has kept and this one cannot read is left out. */
export async function listSchedules(connection: QueueConnection): Promise<ListedSchedule[]> {
  const schedulers = await runsQueue(connection).getJobSchedulers();
  const listed = await Promise.all(schedulers.map((scheduler) => readSchedule(connection, scheduler)));
  return listed.filter((one) => one !== undefined).sort((a, b) => a.name.localeCompare(b.name));
}

/**
 * Removes a schedule with the run that it has pending; one that goes on goes on.
 * @throws {UsageError} when there is none of that name
 */
export async function removeSchedule(connection: QueueConnection, name: string): Promise<void> {
  const removed = await runsQueue(connection).removeJobScheduler(name);
  if (!removed) throw await unknownSchedule(connection, name);
  await connection.store.setFields(recordOf(name), NO_RECORD);
}

/**
 * Keeps how a scheduled run ended, which may outlast its schedule: nothing is kept then. To be called at every end, also
 * where it was skipped or refused.
 */
export async function noteScheduledRun(
  connection: QueueConnection,
  name: string,
  job: { readonly timestamp: number },
  outcome: RunOutcome,
): Promise<void> {
  const { store } = connection;
  const { addedAt = 0 } = await store.getFields(recordOf(name));
  // Of a schedule that was removed since, and another one was added with its name.
  if (job.timestamp < Number(addedAt)) return;
  const { exitCode } = outcome;
  const lastAt = String(Date.now());
  const isSuccess = outcome.outcome === 'ended' && exitCode === 0;
  const last = { lastAt, lastExit: String(exitCode), lastText: outcomeText(outcome) };
  await store.setFields(recordOf(name), { ...last, ...(isSuccess && { lastSuccessAt: lastAt }) });
  // In this order: a removal is either seen here, or takes the record away when it has removed the schedule.
  const scheduler = await runsQueue(connection).getJobScheduler(name);
  if (scheduler === undefined) await store.setFields(recordOf(name), NO_RECORD);
}

/** @throws {UsageError} when there is none of that name */
export async function getSchedule(connection: QueueConnection, name: string): Promise<ListedSchedule> {
  const schedule = await findSchedule(connection, name);
  if (schedule === undefined) throw await unknownSchedule(connection, name);
  return schedule;
}

async function findSchedule(connection: QueueConnection, name: string): Promise<ListedSchedule | undefined> {
  const scheduler = await runsQueue(connection).getJobScheduler(name);
  return scheduler === undefined ? undefined : await readSchedule(connection, scheduler);
}

type Scheduler = NonNullable<Awaited<ReturnType<JobQueue<RunRequest, RunOutcome>['getJobScheduler']>>>;

async function readSchedule(
  connection: QueueConnection,
  { key, pattern, every, tz, next, template }: Scheduler,
): Promise<ListedSchedule | undefined> {
  const request = runRequestSchema.safeParse(template?.data).data;
  const cron = pattern ?? (every === undefined ? undefined : `every ${formatDuration(every)}`);
  if (request === undefined || cron === undefined) return undefined;
  const record = await readScheduleRecord(connection.store, key);
  return { name: key, cron, timeZone: tz ?? 'UTC', request, nextAt: next, record };
}

async function unknownSchedule(connection: QueueConnection, name: string): Promise<UsageError> {
  const names = (await listSchedules(connection)).map((schedule) => schedule.name);
  const near = nearest(name, names);
  const all = names.join(', ') || 'none; `bulk-describe schedule add` makes one';
  const hint = near === undefined ? `there are ${all}` : `did you mean ${near}?`;
  return new UsageError(`there is no schedule ${name}: ${hint}`);
}

function changesBetween(before: Schedule, now: Schedule): string[] {
  const valuesOf = ({ cron, timeZone, request }: Schedule): Record<string, unknown> => ({
    cron,
    ...request,
    timeZone,
  });
  const [old, wanted] = [valuesOf(before), valuesOf(now)];
  return Object.keys({ ...old, ...wanted })
    .filter((name) => !isDeepStrictEqual(old[name], wanted[name]))
    .map((name) => `${name}: ${textOf(old[name])} -> ${textOf(wanted[name])}`);
}

function textOf(value: unknown): string {
  if (value === undefined) return '(none)';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function runsQueue(connection: QueueConnection): JobQueue<RunRequest, RunOutcome> {
  return connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE);
}

/** What is known of a schedule's runs; nothing before the first has ended. */
export async function readScheduleRecord(store: SharedStore, name: string): Promise<ScheduleRecord> {
  return scheduleRecordSchema.safeParse(await store.getFields(recordOf(name))).data ?? {};
}

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
function checkTimeZone(timeZone: string): void {
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

/**
 * Fixes the moment in which a scheduled run has begun, and its date with it; one that has begun stays as it is.
 * @throws {UsageError} when its time zone is not known here
 */
export function beginRequest(request: RunRequest, nowMs: number): RunRequest {
  const { output, timeZone = 'UTC' } = request;
  checkTimeZone(timeZone);
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
