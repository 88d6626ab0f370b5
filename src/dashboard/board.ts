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
import { repeat, unlessAborted } from '../shared/waiting.js';
import { refuseWrite } from './access.js';
import { BOARD_PATH } from './pages/html.js';
import {
  type BoardJob,
  describeJobTitle,
  fileNameOf,
  imageLink,
  resultJobTitle,
  runJobTitle,
} from './texts.js';

const EVERY_MS = 2000;
const TITLES = { describe: describeJobTitle, results: resultJobTitle, runs: runJobTitle } as const;

/** Bull Board over the queues of the moment. */
export class Board {
  readonly #adapter = new FastifyAdapter();
  readonly #adapters = new Map<string, BullMQAdapter>();
  readonly #board: ReturnType<typeof createBullBoard>;
  readonly #ended = new AbortController();
  #watching: Promise<void> = Promise.resolve();

  constructor(
    private readonly connection: QueueConnection,
    private readonly options: { readOnly: boolean; logger: Logger },
  ) {
    this.#adapter.setBasePath(BOARD_PATH);
    this.#board = createBullBoard({
      queues: [],
      serverAdapter: this.#adapter,
      options: { uiConfig: uiConfig(connection), handlerHooks: { before: guardWrites } },
    });
  }

  /** What serves it; to be registered under its base path. */
  get plugin(): FastifyPluginCallback {
    return this.#adapter.registerPlugin();
  }

  /** Shows the queues there are, and looks for others every other second. */
  async start(): Promise<void> {
    await this.#refresh();
    this.#watching = this.#watch();
  }

  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#watching;
  }

  async #watch(): Promise<void> {
    await repeat(
      EVERY_MS,
      this.#ended.signal,
      () => this.#refresh(),
      (error) => {
        this.connection.noteTrouble(error);
        this.options.logger.debug({ error: messageOf(error) }, 'the queue did not answer; looking again');
      },
    );
  }

  async #refresh(): Promise<void> {
    // A queue that is away would answer when it is back, and not before.
    const wanted = await unlessAborted(boardQueues(this.connection, Date.now()), this.#ended.signal);
    const names = new Set(wanted.map(({ name }) => name));
    for (const name of this.#adapters.keys()) if (!names.has(name)) this.#adapters.delete(name);
    for (const queue of wanted) {
      if (!this.#adapters.has(queue.name)) this.#adapters.set(queue.name, this.#adapt(queue));
    }
    this.#board.replaceQueues(wanted.flatMap(({ name }) => this.#adapters.get(name) ?? []));
  }

  #adapt({ name, kind, title, description }: BoardQueue): BullMQAdapter {
    // Runs come and go; one that is let go meanwhile can still be looked at.
    const queue = kind === 'results' ? this.connection.passingQueue(name) : this.connection.queue(name);
    if (!isPlainQueue(queue)) throw new TypeError(`the queue ${name} is none of BullMQ's`);
    const adapter = new BullMQAdapter(queue, {
      // Results are the coordinator's to take, and runs are handed in with `enqueue`.
      readOnlyMode: this.options.readOnly || kind !== 'describe',
      description,
      ...(title !== undefined && { displayName: title }),
    });
    adapter.setFormatter('name', (job: BoardJob) => TITLES[kind](job));
    // What the types leave out: a job may have no link, and completed ones are never done again.
    return Object.assign(adapter, {
      allowCompletedRetries: false,
      ...(kind === 'describe' && { externalJobUrl: imageLink }),
    });
  }
}

/** A queue that is to be seen on the board. */
interface BoardQueue {
  readonly name: string;
  readonly kind: 'runs' | 'describe' | 'results';
  /** Shown instead of its name. */
  readonly title?: string;
  readonly description: string;
}

/** The queues of the moment: the runs, the accounts' images, and the results of runs that are going on. */
async function boardQueues(connection: QueueConnection, nowMs: number): Promise<BoardQueue[]> {
  const runs = await registry.list(connection.store, RUNS);
  const withRuns = new Set(runs.map((run) => run.queueName));
  const accounts = await Promise.all(
    [...(await knownAccounts(connection.store, runs))].map(async ([name, label]) => {
      const workers = await registry.listLiving(connection.store, workersOf(name));
      const isBusy = withRuns.has(name) || workers.size > 0;
      return isBusy ? [{ name, kind: 'describe' as const, description: `Images of ${label}` }] : [];
    }),
  );
  return [
    {
      name: RUNS_QUEUE,
      kind: 'runs',
      description: 'Runs that servers execute: enqueued or scheduled. To look at only.',
    },
    ...accounts.flat(),
    ...runs
      .filter((run) => runState(run, nowMs) !== 'ended')
      .map((run) => ({
        name: resultsQueueName(run.run),
        kind: 'results' as const,
        title: `results of ${fileNameOf(run.output)}`,
        description: `Outcomes on their way to ${fileNameOf(run.output)}`,
      })),
  ];
}

/** BullMQ's queue is the same class whatever it is kept in. */
function isPlainQueue(queue: unknown): queue is Queue {
  return queue instanceof Queue;
}

const paramsSchema = z.object({
  queueName: z.string().optional(),
  jobId: z.string().optional(),
  queueStatus: z.string().optional(),
});

const guardWrites: BeforeHook = async ({ method, route, request }) => {
  const { queueName = '', jobId, queueStatus } = paramsSchema.parse(request.params);
  const isWrite = method !== 'get';
  const job = isWrite && jobId !== undefined ? await request.queues.get(queueName)?.getJob(jobId) : undefined;
  const refusal = refuseWrite({ method, route, status: queueStatus, jobState: await job?.getState() });
  if (refusal === undefined) return undefined;
  return { allow: false, status: 403, message: refusal.reason };
};

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
