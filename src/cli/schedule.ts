import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import {
  type ListedSchedule,
  addSchedule,
  getSchedule,
  listSchedules,
  removeSchedule,
} from '../service/schedules.js';
import { formatDuration } from '../shared/limits.js';
import { UsageError, manifestsText } from '../shared/errors.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import { SERVERS } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessAborted } from '../shared/waiting.js';
import { executeRequest, requestOf } from './requests.js';
import type { OptionsOf } from './options.js';
import { withSharedQueue } from './process.js';
import { fields, print, printJson, printable } from './text.js';

/** `bulk-describe schedule add <name> <manifest...>`. @returns 0 */
export async function add(
  options: OptionsOf<'schedule add'>,
  name: string,
  ...manifests: string[]
): Promise<number> {
  const { cron, tz: timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone } = options;
  if (options.output === undefined) {
    throw new UsageError(
      'schedule add needs to know with -o <output> where the prompts go; {date} in its name starts a new file each night',
    );
  }
  if (cron === undefined)
    throw new UsageError('schedule add needs --cron, such as --cron "0 2 * * *" for every night at 2:00');
  const request = requestOf(options, manifests);
  return onSchedules('schedule add', options.queue, async (connection) => {
    const added = await addSchedule(connection, { name, cron, timeZone, request });
    print(
      ...fields([added.kind, name]),
      ...added.changes.map((change) => `  ${printable(change)}`),
      ...fields(['next', added.nextAt !== undefined && momentText(added.nextAt, timeZone, cron)]),
    );
    for (const manifest of manifests) await warnWithoutManifest(connection, manifest);
    await warnWithoutServer(connection);
    return 0;
  });
}

/**
 * Says at once what the first run of the night would: that its manifest is not there. It may still come, and the files of
 * a server on another machine cannot be looked at from here.
 */
async function warnWithoutManifest(connection: QueueConnection, manifest: string): Promise<void> {
  const servers = await SERVERS.listProcesses(connection.store);
  const here = servers.filter(({ host }) => host === hostname()).map(({ root }) => root);
  const folders = servers.length === 0 ? [process.cwd()] : here;
  const { filesLike, isPattern } = await import('../producer/several-manifests.js');
  const isThere = async (folder: string) =>
    existsSync(resolve(folder, manifest)) ||
    (isPattern(manifest, folder) && (await filesLike(manifest, folder)).length > 0);
  if (folders.length === 0 || (await Promise.all(folders.map(isThere))).includes(true)) return;
  const where = servers.length === 0 ? 'this folder; a server looks in its --root' : "the server's folder";
  const text = `warning: there is no ${printable(manifest)} in ${where} (${printable(folders.join(', '))}): runs are refused until it is there`;
  process.stderr.write(`${text}\n`);
}

/** `bulk-describe schedule list`. @returns 0 */
export function list({ queue, json = false }: OptionsOf<'schedule list'>): Promise<number> {
  return onSchedules('schedule list', queue, async (connection) => {
    const schedules = await listSchedules(connection);
    const isPaused = await connection.queue(RUNS_QUEUE).isPaused();
    if (json) {
      printJson(schedules.map((schedule) => scheduleJson(schedule, isPaused)));
    } else if (schedules.length === 0) {
      print('no schedules: `bulk-describe schedule add` makes one');
    } else {
      if (isPaused) print('PAUSED: the runs queue takes up nothing');
      print(...schedules.flatMap(scheduleLines));
      await warnWithoutServer(connection);
    }
    return 0;
  });
}

/** `bulk-describe schedule run <name>`. @returns the exit code */
export function run({ queue }: OptionsOf<'schedule run'>, name: string): Promise<number> {
  return withSharedQueue({ command: 'schedule run', queue }, async (service) => {
    const { request } = await getSchedule(service.connection, name);
    return executeRequest(service, request, queue);
  });
}

/** `bulk-describe schedule remove <name>`. @returns 0 */
export function remove({ queue }: OptionsOf<'schedule remove'>, name: string): Promise<number> {
  return onSchedules('schedule remove', queue, async (connection) => {
    await removeSchedule(connection, name);
    print(...fields(['removed', `${printable(name)}; a run of it that is going on goes on`]));
    return 0;
  });
}

/** Does something that waits for nobody: the first signal ends it. */
function onSchedules(
  command: string,
  queue: string | undefined,
  work: (connection: QueueConnection) => Promise<number>,
): Promise<number> {
  const interrupted = 'interrupted: `bulk-describe schedule list` shows which schedules there are';
  return withSharedQueue({ command, queue, interrupted }, ({ connection, signal }) =>
    unlessAborted(work(connection), signal),
  );
}

async function warnWithoutServer(connection: QueueConnection): Promise<void> {
  if ((await SERVERS.listProcesses(connection.store)).length > 0) return;
  process.stderr.write(
    'no server is running: schedules are executed by `bulk-describe serve`; what is missed meanwhile runs once when it starts\n',
  );
}

/** A moment by the clocks of this machine and, where those are others, by those of the schedule's zone. */
function momentText(atMs: number, timeZone: string, cron?: string): string {
  // The first of six fields is the second.
  const timeStyle = cron !== undefined && cron.trim().split(/\s+/).length > 5 ? 'medium' : 'short';
  const clock = (zone: string | undefined) =>
    new Date(atMs).toLocaleString('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle });
  const here = clock(undefined);
  const there = clock(timeZone);
  return here === there ? `${here} (${timeZone})` : `${here} (${there} in ${timeZone})`;
}

/** A schedule for people. */
function scheduleLines({ name, cron, timeZone, request, nextAt, record }: ListedSchedule): string[] {
  const { lastAt, lastText = '', lastExit = 0, lastSuccessAt } = record;
  const lateMs = nextAt === undefined ? 0 : Date.now() - nextAt;
  const overdue = lateMs > 5000 ? `, overdue for ${formatDuration(lateMs)}` : '';
  const last =
    lastAt !== undefined &&
    `${momentText(lastAt, timeZone, cron)}: ${printable(lastText)} (exit code ${lastExit})`;
  return [
    `${name}: ${printable(manifestsText([request.manifest, ...(request.moreManifests ?? [])]))} -> ${printable(request.output ?? '')}`,
    `  cron    ${cron} in ${timeZone}`,
    `  next    ${nextAt === undefined ? 'unknown' : `${momentText(nextAt, timeZone, cron)}${overdue}`}`,
    `  last    ${last || 'no run has ended yet'}`,
    ...(lastSuccessAt === undefined || lastSuccessAt === lastAt
      ? []
      : [`  success ${momentText(lastSuccessAt, timeZone, cron)}`]),
  ];
}

/** A schedule for programs: an object of `schedule list --json`. Times are ISO 8601, UTC. */
function scheduleJson(schedule: ListedSchedule, isPaused: boolean): Record<string, unknown> {
  const { name, cron, timeZone, request, nextAt, record } = schedule;
  const { lastAt, lastExit: exitCode, lastText: text, lastSuccessAt } = record;
  return {
    // The request names the schedule as well; here it is not named twice.
    ...{ ...request, schedule: undefined },
    name,
    cron,
    timeZone,
    next: isoText(nextAt),
    paused: isPaused,
    last: lastAt === undefined ? null : { at: isoText(lastAt), exitCode, text },
    lastSuccess: isoText(lastSuccessAt),
  };
}

function isoText(atMs: number | undefined): string | null {
  return atMs === undefined ? null : new Date(atMs).toISOString();
}
