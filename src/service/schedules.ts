import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { UsageError } from '../shared/errors.js';
import { formatDuration } from '../shared/limits.js';
import { nearest } from '../shared/nearest.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import type { SharedStore } from '../shared/queue/store.js';
import { checkCron, checkDatedOutput } from './schedule-dates.js';
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
