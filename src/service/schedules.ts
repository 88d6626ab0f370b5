import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { UsageError } from '../shared/errors.js';
import { formatDuration } from '../shared/limits.js';
import { nearest } from '../shared/nearest.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import { UNFINISHED_STATES } from '../shared/jobs.js';
import type { SharedStore } from '../shared/queue/store.js';
import { checkCron, checkDatedOutput } from './schedule-dates.js';
import {
  RUNS_QUEUE,
  RUN_JOB,
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  outcomeText,
  queuedRequests,
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

/** How a schedule's runs have ended; kept beside its job scheduler. */
type ScheduleRecord = Readonly<z.infer<typeof scheduleRecordSchema>>;

/** A schedule as it is kept. */
export interface ListedSchedule extends Schedule {
  /** Epoch milliseconds. In the past while no server is there to take it up: it runs once when one comes. */
  readonly nextAt: number | undefined;
  readonly record: ScheduleRecord;
}

/** What adding a schedule did. `changes`: a line for each thing that is different now. */
export type Added =
  | { readonly kind: 'added'; readonly nextAt: number | undefined }
  | { readonly kind: 'unchanged'; readonly nextAt: number | undefined }
  | { readonly kind: 'changed'; readonly nextAt: number | undefined; readonly changes: readonly string[] };

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
 * @throws {UsageError} when its name, pattern, time zone or output cannot work
 */
export async function addSchedule(connection: QueueConnection, schedule: Schedule): Promise<Added> {
  const { name, cron, timeZone } = schedule;
  checkScheduleName(name);
  checkCron(cron, timeZone);
  if (schedule.request.output !== undefined) checkDatedOutput(schedule.request.output);
  // As it comes back from the queue, which keeps JSON.
  const request = readRequest(JSON.parse(JSON.stringify({ ...schedule.request, schedule: name, timeZone })));
  const wanted = { name, cron: cron.trim().split(/\s+/).join(' '), timeZone, request };
  const existing = await findSchedule(connection, name);
  const changes = existing === undefined ? [] : changesBetween(existing, wanted);
  if (existing !== undefined && changes.length === 0) return { kind: 'unchanged', nextAt: existing.nextAt };
  await runsQueue(connection).upsertJobScheduler(
    name,
    { pattern: wanted.cron, tz: timeZone },
    { name: RUN_JOB, data: request },
  );
  const nextAt = (await findSchedule(connection, name))?.nextAt;
  return existing === undefined ? { kind: 'added', nextAt } : { kind: 'changed', nextAt, changes };
}

/** All schedules by their names, with how they fared. One that another version has kept and this one cannot read is left out. */
export async function listSchedules(connection: QueueConnection): Promise<ListedSchedule[]> {
  const schedulers = await runsQueue(connection).getJobSchedulers();
  const listed = await Promise.all(schedulers.map((scheduler) => readSchedule(connection, scheduler)));
  return listed.filter((one) => one !== undefined).sort((a, b) => a.name.localeCompare(b.name));
}

/** Scheduled runs that go on although their schedule was removed, by their jobs. */
const OUTLASTING_RUNS = 'outlasting-turns';
/** Longer than any run. */
const OUTLASTING_MS = 30 * 24 * 3_600_000;

type RunJobRef = Pick<RunRequestJob, 'id' | 'timestamp'>;

/** A queue that was emptied gives the same ids again. */
function referenceOf({ id = '', timestamp }: RunJobRef): string {
  return `${id}@${timestamp}`;
}

/**
 * Removes a schedule with the run that it has pending; one that goes on goes on.
 * @throws {UsageError} when there is none of that name
 */
export async function removeSchedule(connection: QueueConnection, name: string): Promise<void> {
  const removed = await runsQueue(connection).removeJobScheduler(name);
  if (!removed) throw await unknownSchedule(connection, name);
  // How they end is nothing that one of the same name is to show, which may be added meanwhile.
  const { requests } = await queuedRequests(connection, UNFINISHED_STATES);
  for (const { job, names } of requests) {
    if (names.schedule === name) {
      await connection.store.announce(OUTLASTING_RUNS, referenceOf(job), '', OUTLASTING_MS);
    }
  }
  await forgetScheduleRecord(connection.store, name);
}

/**
 * Keeps how a scheduled run ended, which may outlast its schedule: nothing is kept then. To be called at every end, also
 * where it was skipped or refused.
 */
export async function noteScheduledRun(
  connection: QueueConnection,
  { name, job }: { readonly name: string; readonly job: RunJobRef },
  outcome: RunOutcome,
): Promise<void> {
  if ((await connection.store.members(OUTLASTING_RUNS)).has(referenceOf(job))) return;
  const { exitCode } = outcome;
  const isSuccess = outcome.outcome === 'ended' && exitCode === 0;
  await keepScheduleRecord(connection.store, name, {
    at: Date.now(),
    exitCode,
    text: outcomeText(outcome),
    isSuccess,
  });
  // In this order: a removal is either seen here, or takes the record away when it has removed the schedule.
  const scheduler = await runsQueue(connection).getJobScheduler(name);
  if (scheduler === undefined) await forgetScheduleRecord(connection.store, name);
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
  const hint =
    near !== undefined
      ? `did you mean ${near}?`
      : names.length === 0
        ? 'there are none; `bulk-describe schedule add` makes one'
        : `there are ${names.join(', ')}`;
  return new UsageError(`there is no schedule ${name}: ${hint}`);
}

function changesBetween(before: Schedule, now: Schedule): string[] {
  const [old, wanted] = [before, now].map(({ cron, timeZone, request }) => {
    const values: Record<string, unknown> = { cron, ...request, timeZone };
    return values;
  });
  const names = [...new Set([...Object.keys(old ?? {}), ...Object.keys(wanted ?? {})])];
  return names
    .filter((name) => !isDeepStrictEqual(old?.[name], wanted?.[name]))
    .map((name) => `${name}: ${textOf(old?.[name])} -> ${textOf(wanted?.[name])}`);
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
  return scheduleRecordSchema.safeParse(await store.getFields(`schedule:${name}`)).data ?? {};
}

/** Keeps how a scheduled run ended; where it was no success, the time of the last one stays. */
export async function keepScheduleRecord(
  store: SharedStore,
  name: string,
  end: {
    /** Epoch milliseconds. */
    readonly at: number;
    readonly exitCode: number;
    readonly text: string;
    /** Every row is described or accepted. */
    readonly isSuccess: boolean;
  },
): Promise<void> {
  const lastAt = String(end.at);
  await store.setFields(`schedule:${name}`, {
    lastAt,
    lastExit: String(end.exitCode),
    lastText: end.text,
    ...(end.isSuccess && { lastSuccessAt: lastAt }),
  });
}

async function forgetScheduleRecord(store: SharedStore, name: string): Promise<void> {
  const nothing = { lastAt: null, lastExit: null, lastText: null, lastSuccessAt: null };
  await store.setFields(`schedule:${name}`, nothing);
}
