import { enqueueRun } from '../service/enqueue-run.js';
import { addSchedule, getSchedule, listSchedules, removeSchedule } from '../service/schedules.js';
import { UsageError } from '../shared/errors.js';
import { SERVERS } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { nearest } from '../shared/nearest.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import { enqueueOptions, tellEnqueued } from './enqueue-command.js';
import { type FlagTable, parseFlags } from './flags.js';
import { openSharedQueue, queueArgument } from './redis-queue.js';
import { REQUEST_FLAGS, requestOf } from './request-flags.js';
import { addedLines, scheduleJson, scheduleLines } from './schedule-text.js';
import { listenForSignals } from './signals.js';
import { printable } from './text.js';

type Action = (argv: readonly string[], env: NodeJS.ProcessEnv) => Promise<number>;

const ACTIONS: Readonly<Record<string, Action>> = { add, list, run, remove };
const QUEUE_FLAGS = { queue: REQUEST_FLAGS.queue, help: REQUEST_FLAGS.help } as const satisfies FlagTable;

/** `bulk-describe schedule add|list|run|remove`. @returns the exit code */
export async function scheduleCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const [name, ...rest] = argv;
  const action = name !== undefined && Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
  if (action !== undefined) return await action(rest, env);
  const near = name === undefined ? undefined : nearest(name, Object.keys(ACTIONS));
  const hint =
    near === undefined ? 'see `bulk-describe schedule --help`' : `did you mean \`schedule ${near}\`?`;
  const trouble =
    name === undefined ? 'schedule needs to know what to do' : `unknown command schedule ${name}`;
  throw new UsageError(`${trouble} (add, list, run or remove): ${hint}`);
}

const ADD_FLAGS = {
  ...REQUEST_FLAGS,
  cron: { takes: 'value' },
  tz: { takes: 'value' },
} as const satisfies FlagTable;

async function add(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('schedule', argv, ADD_FLAGS, env);
  const [name, manifest, extra] = flags.positionals;
  const cron = flags.get('cron');
  if (name === undefined || manifest === undefined || extra !== undefined) {
    throw new UsageError(
      'schedule add needs a name and a manifest: bulk-describe schedule add <name> <manifest> -o <output> --cron "0 2 * * *" --tz Europe/Prague',
    );
  }
  if (!flags.has('output')) {
    throw new UsageError(
      'schedule add needs to know with -o <output> where the prompts go; {date} in its name starts a new file each night',
    );
  }
  if (cron === undefined)
    throw new UsageError('schedule add needs --cron, such as --cron "0 2 * * *" for every night at 2:00');
  const timeZone = flags.get('tz') ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  const request = requestOf(manifest, flags);
  return await withQueue('schedule add', flags.get('queue'), env, async (connection) => {
    const added = await addSchedule(connection, { name, cron, timeZone, request });
    print(addedLines(name, added, timeZone));
    await warnWithoutHome(connection);
    return 0;
  });
}

async function list(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('schedule', argv, { ...QUEUE_FLAGS, json: { takes: 'nothing' } }, env);
  refuseMore('schedule list', flags.positionals, 0);
  return await withQueue('schedule list', flags.get('queue'), env, async (connection) => {
    const schedules = await listSchedules(connection);
    const isPaused = await connection.queue(RUNS_QUEUE).isPaused();
    if (flags.has('json')) {
      print([JSON.stringify(schedules.map((schedule) => scheduleJson(schedule, isPaused)))]);
      return 0;
    }
    print(scheduleLines(schedules, { isPaused, nowMs: Date.now() }));
    if (schedules.length > 0) await warnWithoutHome(connection);
    return 0;
  });
}

async function run(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('schedule', argv, QUEUE_FLAGS, env);
  const name = refuseMore('schedule run', flags.positionals, 1);
  const signals = listenForSignals(() => undefined);
  try {
    return await withQueue('schedule run', flags.get('queue'), env, async (connection) => {
      const { request } = await getSchedule(connection, name);
      const options = enqueueOptions(connection, signals.signal);
      const queue = queueArgument(flags.get('queue'), env, connection);
      return tellEnqueued(await enqueueRun(connection, request, options), queue);
    });
  } finally {
    signals.dispose();
  }
}

async function remove(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('schedule', argv, QUEUE_FLAGS, env);
  const name = refuseMore('schedule remove', flags.positionals, 1);
  return await withQueue('schedule remove', flags.get('queue'), env, async (connection) => {
    await removeSchedule(connection, name);
    print([`removed   ${printable(name)}; a run of it that is going on goes on`]);
    return 0;
  });
}

/** @returns the name that a command takes, or nothing where it takes none */
function refuseMore(command: string, positionals: readonly string[], wanted: 0 | 1): string {
  const [name = ''] = positionals;
  if (positionals.length === wanted) return name;
  const expected = wanted === 0 ? 'takes no arguments' : "takes a schedule's name";
  throw new UsageError(`${command} ${expected}: see \`bulk-describe schedule --help\``);
}

async function withQueue(
  command: string,
  url: string | undefined,
  env: NodeJS.ProcessEnv,
  work: (connection: QueueConnection) => Promise<number>,
): Promise<number> {
  const connection = await openSharedQueue(command, url, env, {});
  try {
    return await work(connection);
  } finally {
    await connection.close();
  }
}

async function warnWithoutHome(connection: QueueConnection): Promise<void> {
  if ((await registry.listProcesses(connection.store, SERVERS)).length > 0) return;
  process.stderr.write(
    'no home is running: schedules are executed by `bulk-describe serve`; what is missed meanwhile runs once when it starts\n',
  );
}

function print(lines: readonly string[]): void {
  for (const line of lines) process.stdout.write(`${line}\n`);
}
