import { describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { messageOf } from '../shared/errors.js';
import type { Limits } from '../shared/limits.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { sleep } from '../shared/sleep.js';
import { UndoStack } from '../shared/undo.js';
import { workersOf, type WorkerStatus } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { DescribeWorker } from '../worker/describe-worker.js';
import { type ApiOptions, accountOf } from './api-options.js';
import { openClient } from './open-client.js';
import type { RunOptions } from './run-options.js';

/** Whose images are worked on, and how; the API, account and limit flags one to one. */
export type AccountWorkerOptions = ApiOptions & Pick<RunOptions, 'limits'>;

export interface AccountWorkerTools {
  readonly logger: Logger;
  readonly onEvent: (event: WorkerEvent) => void;
}

export type WorkerEvent =
  /** The limits of the account, and over how many workers they hold; told first, and at each change. */
  | { readonly type: 'limits'; readonly limits: Limits; readonly workers: number }
  /** What the limits have been changed to by this worker's own flags. */
  | { readonly type: 'limits-changed'; readonly text: string }
  /** Something that a person should know and need not act on. */
  | { readonly type: 'notice'; readonly text: string }
  /** The API refuses, is down, or is back: the first word comes when it is no longer `working`. */
  | { readonly type: 'state'; readonly status: WorkerStatus };

/** A worker of an account, for whoever's runs, on an open queue. */
export interface AccountWorker {
  readonly status: WorkerStatus;
  /** Takes no more images, awaits submits on the wire, hands the others to the other workers at once. */
  stop(): Promise<void>;
}

const LOOK_EVERY_MS = 1000;

/**
 * Starts a worker for an account: its limits (those given explicitly become the account's, the others are
 * adopted from it), the API's client, and the taking of images.
 * @throws {UsageError} when there is no token, or an option cannot work
 */
export async function startAccountWorker(
  connection: QueueConnection,
  options: AccountWorkerOptions,
  { logger, onEvent }: AccountWorkerTools,
): Promise<AccountWorker> {
  const account = accountOf(options);
  const queueName = describeQueueName(account);
  const undo = new UndoStack();
  try {
    const client = await openClient(options, undo, (text) => onEvent({ type: 'notice', text }));
    const limits = await AccountLimits.open(connection.store, queueName, options.limits ?? {}, logger);
    const worker = await DescribeWorker.start({
      connection,
      account,
      client,
      limits,
      logger,
      webhooks: options.webhooks,
    });
    undo.defer(() => worker.stop());
    const watch = new WorkerWatch(connection, queueName, { worker, limits, logger, onEvent });
    await watch.look();
    if (limits.lastChange !== undefined) onEvent({ type: 'limits-changed', text: limits.lastChange });
    watch.start();
    undo.defer(() => watch.stop());
    return {
      get status() {
        return worker.status;
      },
      stop: () => undo.release(),
    };
  } catch (error) {
    await undo.release();
    throw error;
  }
}

interface WatchTools extends AccountWorkerTools {
  readonly worker: DescribeWorker;
  readonly limits: AccountLimits;
}

/** Tells what people should know of a worker, each time it has changed. */
class WorkerWatch {
  readonly #ended = new AbortController();
  #watching: Promise<void> = Promise.resolve();
  #told = '';
  #state: WorkerStatus['state'] = 'working';

  constructor(
    private readonly connection: QueueConnection,
    private readonly queueName: string,
    private readonly tools: WatchTools,
  ) {}

  start(): void {
    this.#watching = this.#watch();
  }

  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#watching;
  }

  async look(): Promise<void> {
    const { worker, limits, onEvent } = this.tools;
    const { status } = worker;
    if (status.state !== this.#state) onEvent({ type: 'state', status });
    this.#state = status.state;
    const workers = (await registry.listProcesses(this.connection.store, workersOf(this.queueName))).length;
    const { configured } = limits;
    const now = JSON.stringify([configured, workers]);
    if (now !== this.#told) onEvent({ type: 'limits', limits: configured, workers });
    this.#told = now;
  }

  async #watch(): Promise<void> {
    while (await sleep(LOOK_EVERY_MS, this.#ended.signal)) {
      try {
        await unlessAborted(this.look(), this.#ended.signal);
      } catch (error) {
        this.tools.logger.debug({ error: messageOf(error) }, 'the queue did not answer; looking again');
      }
    }
  }
}
