import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FastifyAdapter } from '@bull-board/fastify';
import { Queue } from 'bullmq';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { requestNames } from '../service/run-request.js';
import { knownAccounts } from '../service/views.js';
import { resultsQueueName } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import { RUNS_QUEUE, describeJobSchema } from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import { RUNS, workersOf } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { repeat, unlessAborted } from '../shared/waiting.js';
import { BOARD_PATH } from './html.js';
import { describedSchema, imageDataSchema } from './images.js';
import { fileNameOf, httpUrl, shortUrl, visible } from './texts.js';

const EVERY_MS = 2000;

/** Serves Bull Board over the queues there are; it looks for others every other second until the server is closed. */
export async function addBoard(
  app: FastifyInstance,
  connection: QueueConnection,
  logger: Logger | undefined,
): Promise<void> {
  const adapter = new FastifyAdapter();
  adapter.setBasePath(BOARD_PATH);
  const options = { uiConfig: uiConfig(connection) };
  const board = createBullBoard({ queues: [], serverAdapter: adapter, options });
  let adapters = new Map<string, BullMQAdapter>();
  const ended = new AbortController();
  const refresh = async () => {
    // A queue that is away would answer when it is back, and not before.
    const wanted = await unlessAborted(boardQueues(connection), ended.signal);
    adapters = new Map(
      wanted.map((queue) => [queue.name, adapters.get(queue.name) ?? adapt(connection, queue)]),
    );
    board.replaceQueues([...adapters.values()]);
  };
  await refresh();
  await app.register(adapter.registerPlugin(), { prefix: BOARD_PATH });
  const watching = repeat(EVERY_MS, ended.signal, refresh, (error) => {
    connection.outage.note(error);
    logger?.debug({ error: messageOf(error) }, 'the queue did not answer; looking again');
  });
  app.addHook('onClose', () => {
    ended.abort();
    return watching;
  });
}

interface BoardQueue {
  readonly name: string;
  readonly kind: 'runs' | 'describe' | 'results';
  readonly description: string;
  /** Shown instead of its name. */
  readonly displayName?: string;
}

function adapt(connection: QueueConnection, { name, kind, ...shown }: BoardQueue): BullMQAdapter {
  // Runs come and go; one that is let go meanwhile can still be looked at.
  const queue = kind === 'results' ? connection.passingQueue(name) : connection.queue(name);
  if (!isPlainQueue(queue)) throw new TypeError(`the queue ${name} is none of BullMQ's`);
  // Its buttons could pay twice for an image, lose a row or lift a limit: what helps is on the pages, see `actions.ts`.
  const adapter = new BullMQAdapter(queue, { readOnlyMode: true, ...shown });
  adapter.setFormatter('name', (job: BoardJob) => TITLES[kind](job));
  if (kind !== 'describe') return adapter;
  adapter.setFormatter('data', (data: unknown) => shownDataSchema.safeParse(data).data ?? data);
  adapter.setFormatter(
    'returnValue',
    (result: unknown) => describedSchema.safeParse(result).data?.outcome ?? result,
  );
  // What the types leave out: a job may have no link.
  return Object.assign(adapter, { externalJobUrl: imageLink });
}

/** BullMQ's queue is the same class whatever it is kept in. */
function isPlainQueue(queue: unknown): queue is Queue {
  return queue instanceof Queue;
}

/** The queues of the moment: the runs, the accounts' images, and the results of runs that are going on. */
async function boardQueues(connection: QueueConnection): Promise<BoardQueue[]> {
  const { store } = connection;
  const runs = await RUNS.list(store);
  const queues: BoardQueue[] = [
    {
      name: RUNS_QUEUE,
      kind: 'runs',
      description: 'Runs that servers execute: enqueued or scheduled.',
    },
  ];
  for (const [name, label] of await knownAccounts(store, runs)) {
    const isBusy = runs.some((run) => run.queueName === name);
    if (!isBusy && (await workersOf(name).listLiving(store)).size === 0) continue;
    queues.push({ name, kind: 'describe', description: `Images of ${label}` });
  }
  for (const run of runs) {
    if (run.ended !== undefined) continue;
    const file = fileNameOf(run.output);
    const shown = { description: `Outcomes on their way to ${file}`, displayName: `results of ${file}` };
    queues.push({ name: resultsQueueName(run.run), kind: 'results', ...shown });
  }
  return queues;
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

/** What a person is to see of a job: its image and row, how the image ended, or the files of a run and its schedule. */
export const TITLES = {
  describe: titledBy(readerOf(imageDataSchema), ({ url, row, title }) =>
    [title, `${shortUrl(url)}, row ${row}`].filter((part) => part !== undefined).join(' · '),
  ),
  results: titledBy(readerOf(resultDataSchema), ({ outcome }) =>
    outcome.status === 'described'
      ? `described, message ${outcome.messageId}`
      : `failed, ${outcome.code}: ${outcome.reason}`,
  ),
  runs: titledBy(requestNames, ({ manifest, output, schedule }) => {
    const files = output === undefined ? manifest : `${manifest} → ${output}`;
    return schedule === undefined ? files : `${schedule}: ${files}`;
  }),
};

function readerOf<T>(schema: z.ZodType<T>): (data: unknown) => T | undefined {
  return (data) => schema.safeParse(data).data;
}

function titledBy<T>(read: (data: unknown) => T | undefined, title: (data: T) => string) {
  return ({ name = '', data }: BoardJob): string => {
    const known = read(data);
    return visible(known === undefined ? name : title(known));
  };
}

/** Where a describe job's link leads: to its image. Anything but http(s) is no link. */
export function imageLink({ data }: BoardJob): { displayText: string; href: string } | undefined {
  const href = httpUrl(imageDataSchema.safeParse(data).data?.url ?? '');
  return href === undefined ? undefined : { displayText: 'image', href };
}

/** What people look for in a job's data, so that the prompts below it are on one screen with it; the title has the rest. */
const shownDataSchema = describeJobSchema.pick({
  url: true,
  prompt: true,
  submits: true,
  polls: true,
  maybePaid: true,
  messageId: true,
  lastMessageId: true,
});

function uiConfig(connection: QueueConnection) {
  return {
    boardTitle: 'bulk-describe',
    miscLinks: [
      { text: 'Runs', url: '/runs' },
      { text: 'Metrics', url: '/metrics' },
    ],
    hideDocsLink: true,
    showMetrics: false,
    // The workers' own list of connections is Redis's alone.
    showWorkers: connection.kind === 'redis',
    pollingInterval: { showSetting: true },
  };
}
