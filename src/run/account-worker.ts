import { DescribeClient } from '../describe-api/client.js';
import { dialectFor } from '../describe-api/dialects/index.js';
import { describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import type { Limits } from '../shared/limits.js';
import { type Logger, debugError } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { repeat } from '../shared/waiting.js';
import type { UndoStack } from '../shared/undo.js';
import { workersOf, type WorkerStatus } from '../shared/published.js';
import { DescribeWorker } from '../worker/describe-worker.js';
import {
  type ApiOptions,
  accountOf,
  apiOf,
  apiWarnings,
  checkApi,
  dialectSettingsOf,
} from './api-options.js';
import type { RunOptions } from './run-options.js';

export type WorkerEvent =
  /** The limits of the account, and over how many workers they hold; emitted first, and at each change. */
  | { readonly type: 'limits'; readonly limits: Limits; readonly workers: number }
  /** What the limits have been changed to by this worker's own flags. */
  | { readonly type: 'limits-changed'; readonly text: string }
  /** Something that a person should know and need not act on. */
  | { readonly type: 'notice'; readonly text: string }
  /** The API refuses, is down, or is back: it is emitted first when it is no longer `working`. */
  | { readonly type: 'state'; readonly status: WorkerStatus };

const LOOK_EVERY_MS = 1000;

/**
 * Starts a worker for an account, for whoever's runs: its limits (those given explicitly become the account's, the others
 * are adopted from it), the API's client, and the taking of images.
 * @param undo gets its end: it takes no more images, awaits submits on the wire, and releases the others to other workers
 * @throws {UsageError} when there is no token, or an option cannot work
 */
export async function startAccountWorker(
  connection: QueueConnection,
  options: ApiOptions & Pick<RunOptions, 'limits'>,
  undo: UndoStack,
  { logger, onEvent }: { readonly logger: Logger; readonly onEvent: (event: WorkerEvent) => void },
): Promise<DescribeWorker> {
  const { webhooks, images } = options;
  const account = accountOf(options);
  const queueName = describeQueueName(account);
  const onNotice = (text: string) => onEvent({ type: 'notice', text });
  const client = await openClient(options, undo, onNotice);
  const limits = await AccountLimits.open(connection.store, queueName, options.limits ?? {}, logger);
  const worker = await DescribeWorker.start({
    ...{ connection, account, client, limits, logger, webhooks, images, onNotice },
  });
  undo.defer(() => worker.stop());
  let state: WorkerStatus['state'] = 'working';
  let reported = '';
  const look = async () => {
    const { status } = worker;
    if (status.state !== state) onEvent({ type: 'state', status });
    state = status.state;
    const workers = (await workersOf(queueName).listProcesses(connection.store)).length;
    const { configured } = limits;
    const now = JSON.stringify([configured, workers]);
    if (now !== reported) onEvent({ type: 'limits', limits: configured, workers });
    reported = now;
  };
  await look();
  if (limits.lastChange !== undefined) onEvent({ type: 'limits-changed', text: limits.lastChange });
  const ended = new AbortController();
  const onError = debugError(logger, 'the queue did not answer; looking again');
  const looking = repeat(LOOK_EVERY_MS, ended.signal, look, onError);
  undo.defer(() => {
    ended.abort();
    return looking;
  });
  return worker;
}

/**
 * The API's client, for whoever works; with `simulator` for an API, one that is started in this process.
 * @param undo gets the closing of both
 * @param warn gets what a person should know
 * @throws {UsageError} for options that cannot work
 */
export async function openClient(
  options: ApiOptions,
  undo: UndoStack,
  warn: (text: string) => void,
): Promise<DescribeClient> {
  checkApi(options);
  for (const text of apiWarnings(options)) warn(text);
  const dialect = dialectFor(options);
  let baseUrl = apiOf(options);
  if (baseUrl === 'simulator') {
    const { startSimulator } = await import('../simulator/simulator.js');
    const simulator = await startSimulator({});
    undo.defer(() => simulator.close());
    baseUrl = simulator.urlOf(dialect.name);
  }
  const client = new DescribeClient({
    baseUrl,
    dialect,
    token: options.token,
    ...{ authHeader: options.authHeader, headers: options.headers, secretHeaders: options.secretHeaders },
    timeoutMs: options.requestTimeoutMs,
    // The queue bounds them: a call that waited here would have its permit already, and could not be taken back.
    maxConcurrent: Infinity,
    ...dialectSettingsOf(options),
  });
  undo.defer(() => client.close());
  return client;
}
