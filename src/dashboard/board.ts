import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { BeforeHook } from '@bull-board/api/typings/app';
import { FastifyAdapter } from '@bull-board/fastify';
import { Queue } from 'bullmq';
import type { FastifyPluginCallback } from 'fastify';
import { z } from 'zod';
import { knownAccounts } from '../service/views.js';
import { resultsQueueName } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import { RUNS, runState, workersOf } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import * as registry from '../shared/queue/registry.js';
import type { UndoStack } from '../shared/undo.js';
import { repeat, unlessAborted } from '../shared/waiting.js';
import { BOARD_PATH } from './html.js';
import { fileNameOf, httpUrl, imageDataSchema, shortUrl, visible } from './texts.js';

const EVERY_MS = 2000;

/**
 * Bull Board over the queues there are; it looks for others every other second until the undo.
 * @returns what serves it; to be registered under its base path
 */
export async function startBoard(
  connection: QueueConnection,
  undo: UndoStack,
  { readOnly, logger }: { readOnly: boolean; logger: Logger },
): Promise<FastifyPluginCallback> {
  const adapter = new FastifyAdapter();
  adapter.setBasePath(BOARD_PATH);
  const options = { uiConfig: uiConfig(connection), handlerHooks: { before: guardWrites } };
  const board = createBullBoard({ queues: [], serverAdapter: adapter, options });
  const adapters = new Map<string, BullMQAdapter>();
  const ended = new AbortController();
  const refresh = async () => {
    // A queue that is away would answer when it is back, and not before.
    const wanted = await unlessAborted(boardQueues(connection, Date.now()), ended.signal);
    const names = new Set(wanted.map(({ name }) => name));
    for (const name of adapters.keys()) if (!names.has(name)) adapters.delete(name);
    for (const queue of wanted) {
      if (!adapters.has(queue.name)) adapters.set(queue.name, adapt(connection, queue, readOnly));
    }
    board.replaceQueues([...adapters.values()]);
  };
  await refresh();
  const watching = repeat(EVERY_MS, ended.signal, refresh, (error) => {
    connection.noteTrouble(error);
    logger.debug({ error: messageOf(error) }, 'the queue did not answer; looking again');
  });
  undo.defer(() => {
    ended.abort();
    return watching;
  });
  return adapter.registerPlugin();
}

/** A queue that is to be seen on the board. */
interface BoardQueue {
  readonly name: string;
  readonly kind: 'runs' | 'describe' | 'results';
  readonly description: string;
  /** Shown instead of its name. */
  readonly displayName?: string;
}

function adapt(
  connection: QueueConnection,
  { name, kind, ...shown }: BoardQueue,
  readOnly: boolean,
): BullMQAdapter {
  // Runs come and go; one that is let go meanwhile can still be looked at.
  const queue = kind === 'results' ? connection.passingQueue(name) : connection.queue(name);
  if (!isPlainQueue(queue)) throw new TypeError(`the queue ${name} is none of BullMQ's`);
  // Results are the coordinator's to take, and runs are handed in with `enqueue`.
  const adapter = new BullMQAdapter(queue, { readOnlyMode: readOnly || kind !== 'describe', ...shown });
  adapter.setFormatter('name', (job: BoardJob) => TITLES[kind](job));
  // What the types leave out: a job may have no link, and completed ones are never done again.
  return Object.assign(adapter, {
    allowCompletedRetries: false,
    ...(kind === 'describe' && { externalJobUrl: imageLink }),
  });
}

/** BullMQ's queue is the same class whatever it is kept in. */
function isPlainQueue(queue: unknown): queue is Queue {
  return queue instanceof Queue;
}

/** The queues of the moment: the runs, the accounts' images, and the results of runs that are going on. */
async function boardQueues(connection: QueueConnection, nowMs: number): Promise<BoardQueue[]> {
  const { store } = connection;
  const runs = await registry.list(store, RUNS);
  const queues: BoardQueue[] = [
    {
      name: RUNS_QUEUE,
      kind: 'runs',
      description: 'Runs that servers execute: enqueued or scheduled. To look at only.',
    },
  ];
  for (const [name, label] of await knownAccounts(store, runs)) {
    const isBusy = runs.some((run) => run.queueName === name);
    if (!isBusy && (await registry.listLiving(store, workersOf(name))).size === 0) continue;
    queues.push({ name, kind: 'describe', description: `Images of ${label}` });
  }
  for (const run of runs) {
    if (runState(run, nowMs) === 'ended') continue;
    const file = fileNameOf(run.output);
    const shown = { description: `Outcomes on their way to ${file}`, displayName: `results of ${file}` };
    queues.push({ name: resultsQueueName(run.run), kind: 'results', ...shown });
  }
  return queues;
}

const paramsSchema = z.object({
  queueName: z.string().optional(),
  jobId: z.string().optional(),
  queueStatus: z.string().optional(),
});

const guardWrites: BeforeHook = async ({ method, route, request }) => {
  if (method.toLowerCase() === 'get') return undefined;
  const { queueName = '', jobId, queueStatus } = paramsSchema.parse(request.params);
  const job = jobId === undefined ? undefined : await request.queues.get(queueName)?.getJob(jobId);
  const message = refuseWrite(route, queueStatus ?? (await job?.getState()));
  return message === undefined ? undefined : { allow: false, status: 403, message };
};

const RETRIES = ['/api/queues/:queueName/:jobId/retry', '/api/queues/:queueName/retry/:queueStatus'];
const ALWAYS_GOOD = /^\/api\/queues(\/:\w+)*\/(promote|pause|resume)$/;

/**
 * What may be changed from the board: failed images can be taken up again, waiting ones be brought forward, and the
 * taking of images be paused. Everything else that Bull Board offers could pay twice for an image (edited data, a
 * completed job done again), lose a row (removed jobs), or lift a limit of the account.
 * @param route Bull Board's pattern of the write
 * @param state of the job or jobs that it is about
 * @returns why not, or undefined
 */
export function refuseWrite(route: string, state: string | undefined): string | undefined {
  if (ALWAYS_GOOD.test(route)) return undefined;
  if (!RETRIES.includes(route)) {
    return 'not from the board: it could pay for an image twice, lose a row or lift a limit';
  }
  if (state === 'failed') return undefined;
  return 'only failed images can be taken up again: the others are waited for or paid';
}

/** A job as Bull Board hands it to the formatters; its data may be anybody's. */
interface BoardJob {
  readonly name?: string | undefined;
  readonly data?: unknown;
}

const resultDataSchema = z.object({
  outcome: z.union([
    z.object({ status: z.literal('described'), messageId: z.string() }),
    z.object({ status: z.literal('failed'), code: z.string(), reason: z.string() }),
  ]),
});
const runDataSchema = z.object({
  manifest: z.string(),
  output: z.string().optional(),
  schedule: z.string().optional(),
});

/** What a person is to see of a job: its image and row, how the image ended, or the files of a run and its schedule. */
export const TITLES = {
  describe: titledBy(imageDataSchema, ({ url, row }) => `${shortUrl(url)}, row ${row}`),
  results: titledBy(resultDataSchema, ({ outcome }) =>
    outcome.status === 'described'
      ? `described, message ${outcome.messageId}`
      : `failed, ${outcome.code}: ${outcome.reason}`,
  ),
  runs: titledBy(runDataSchema, ({ manifest, output, schedule }) => {
    const files = output === undefined ? manifest : `${manifest} → ${output}`;
    return schedule === undefined ? files : `${schedule}: ${files}`;
  }),
};

function titledBy<T>(schema: z.ZodType<T>, title: (data: T) => string): (job: BoardJob) => string {
  return ({ name = '', data }) => {
    const known = schema.safeParse(data).data;
    return visible(known === undefined ? name : title(known));
  };
}

/** Where a describe job's link leads: to its image. Anything but http(s) is no link. */
export function imageLink({ data }: BoardJob): { displayText: string; href: string } | undefined {
  const href = httpUrl(imageDataSchema.safeParse(data).data?.url ?? '');
  return href === undefined ? undefined : { displayText: 'image', href };
}

function uiConfig(connection: QueueConnection) {
  return {
    boardTitle: 'bulk-describe',
    miscLinks: [
      { text: 'Runs', url: '/runs' },
      { text: 'Metrics', url: '/metrics' },
    ],
    hideDocsLink: true,
    // The story of an image says more than its data.
    jobDetails: { defaultTab: 'Logs' as const },
    showMetrics: false,
    // The workers' own list of connections is Redis's alone.
    showWorkers: connection.kind === 'redis',
    pollingInterval: { showSetting: true },
  };
}
