import { type WorkerEvent, startAccountWorker } from '../run/account-worker.js';
import { type ApiOptions, accountOf, checkApi } from '../run/api-options.js';
import { openImageRoot } from '../run/prepare.js';
import { RootFolder } from '../service/root-folder.js';
import { outcomeText } from '../service/run-request.js';
import type { ServerEvent } from '../service/running-request.js';
import { RunsServer } from '../service/server.js';
import { queueTrouble } from '../service/troubles.js';
import { describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { UsageError } from '../shared/errors.js';
import { startHealthServer } from '../shared/http-server.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import { formatRate } from '../shared/limits.js';
import { plural } from '../shared/plural.js';
import type { WorkerStatus } from '../shared/published.js';
import type { DescribeWorker } from '../worker/describe-worker.js';
import { companionsOf } from './companions.js';
import type { OptionsOf } from './options.js';
import { type Service, runUntilStopped } from './process.js';
import { type AccountOptions, accountOptionsOf, limitsWarning } from './settings.js';
import { Terminal } from './terminal.js';
import { nearPath, printable } from './text.js';

/** `bulk-describe worker`: works for everybody's runs until it is stopped. @returns 0 */
export async function worker(options: OptionsOf<'worker'>): Promise<number> {
  const given = accountOptionsOf(options);
  const { imageRoot } = options;
  const roots = imageRoot === undefined ? [] : [(await openImageRoot(imageRoot)).real];
  const api = { ...given, images: { ...given.images, roots } };
  checkApi(api);
  const terminal = new Terminal(process.stderr, options);
  const about = {
    command: 'worker',
    queue: options.queue,
    companions: companionsOf(options, api, terminal),
    imageRoots: roots,
    goodbye: 'finishing what is on the wire, releasing the rest',
  };
  return runUntilStopped(about, terminal, async (service) => {
    const started = await startWorker(service, api, terminal);
    await startHealth(options, service, terminal, [describeQueueName(accountOf(api))], started);
  });
}

/** `bulk-describe serve`: executes enqueued and scheduled runs until it is stopped. @returns 0 */
export async function serve(options: OptionsOf<'serve'>): Promise<number> {
  const given = accountOptionsOf(options);
  checkWork(options, given);
  const queueName = describeQueueName(accountOf(given));
  const root = await RootFolder.open(options.root ?? '.');
  const api = { ...given, images: { ...given.images, roots: [root.path] } };
  const terminal = new Terminal(process.stderr, options);
  const { logger } = terminal;
  const about = {
    command: 'serve',
    queue: options.queue,
    companions: companionsOf(options, api, terminal),
    imageRoots: [root.path],
    root,
    goodbye: 'writing what has come and releasing the runs',
  };
  return runUntilStopped(about, terminal, async (service) => {
    const { connection, undo } = service;
    let worker: DescribeWorker | undefined;
    if (options.work === true) {
      worker = await startWorker(service, api, terminal);
    } else if (Object.keys(api.limits ?? {}).length > 0) {
      await AccountLimits.open(connection.store, queueName, api.limits ?? {}, logger);
    }
    const server = await RunsServer.start({
      connection,
      root,
      queue: options.queue ?? '',
      // Without a worker here others decide how images are sent.
      api: worker === undefined ? { ...api, images: undefined } : api,
      env: process.env,
      logger,
      onDone: options.onDone,
      ping: options.ping,
      onEvent: (event) => showServerEvent(event, terminal),
    });
    undo.defer(() => server.stop());
    terminal.say(`serving ${root.path}: takes runs from ${connection.label}`);
    const takenFrom = worker === undefined ? [RUNS_QUEUE] : [RUNS_QUEUE, queueName];
    await startHealth(options, service, terminal, takenFrom, worker);
  });
}

/** @throws {UsageError} for what a worker could not work with, and for webhooks that would have no worker */
function checkWork({ work, webhookListen, serveImages }: OptionsOf<'serve'>, api: AccountOptions): void {
  if (work === true) checkApi(api);
  else if (serveImages !== undefined)
    throw new UsageError('--serve-images is for workers, which submit the images: give serve --work too');
  if (work === true || api.webhooks === undefined || webhookListen !== undefined) return;
  throw new UsageError(
    '--webhook-url is for workers: give serve --work too, or --webhook-listen to receive for workers elsewhere',
  );
}

function showServerEvent(event: ServerEvent, terminal: Terminal): void {
  switch (event.type) {
    case 'opened':
      terminal.say(`run ${event.run}: ${event.output}`);
      return;
    case 'notice':
      terminal.warn(`${nearPath(event.output)}: ${printable(event.text, 500)}`);
      return;
    case 'released':
      terminal.say(`released: ${event.output}`);
      return;
    case 'waiting':
      terminal.say(`taken up again, and waits: ${printable(event.reason)}`);
      return;
    case 'over':
      terminal.say(overLine(event));
  }
}

function overLine({ name, outcome }: Extract<ServerEvent, { type: 'over' }>): string {
  const { receipt, exitCode, reason = '' } = outcome;
  if (receipt !== undefined)
    return `run ${receipt.run} has ended with exit code ${exitCode}: ${printable(outcomeText(outcome), 700)}`;
  const why = reason === '' ? '' : `: ${printable(reason, 500)}`;
  return `${outcome.outcome}: ${printable(name, 500)} (exit code ${exitCode})${why}`;
}

/**
 * Answers liveness and readiness, if the options ask for it.
 * @param takenFrom the queues that this process takes work from
 */
async function startHealth(
  { healthPort: port, healthHost: host = '127.0.0.1' }: OptionsOf<'worker'>,
  { connection, undo, signal }: Service,
  terminal: Terminal,
  takenFrom: readonly string[],
  worker: DescribeWorker | undefined,
): Promise<void> {
  if (port === undefined) return;
  const notReady = async () => {
    if (signal.aborted) return 'it is stopping';
    if (worker !== undefined && worker.status.state !== 'working') return stateLine(worker.status);
    return (await queueTrouble(connection, takenFrom))?.full;
  };
  const server = await startHealthServer({ host, port, notReady });
  undo.defer(() => server.close());
  terminal.say(`health at ${server.url}/healthz and /readyz`);
}

/** Starts a worker in this process, which ends with it; and says what the worker says of itself. */
async function startWorker(
  { connection, undo }: Service,
  api: AccountOptions,
  terminal: Terminal,
): Promise<DescribeWorker> {
  const onEvent = (event: WorkerEvent) => showWorkerEvent(event, terminal, api);
  return await startAccountWorker(connection, api, undo, { logger: terminal.logger, onEvent });
}

function showWorkerEvent(event: WorkerEvent, terminal: Terminal, api: ApiOptions): void {
  switch (event.type) {
    case 'limits': {
      const { rate, maxInFlight } = event.limits;
      terminal.say(
        `limits of the account: ${formatRate(rate)}, ${maxInFlight} in flight, over ${plural(event.workers, 'worker')}; ` +
          'more workers do not raise them',
      );
      const warning = limitsWarning(event.limits, api);
      if (warning !== undefined) terminal.warn(warning);
      return;
    }
    case 'limits-changed':
      terminal.say(event.text);
      return;
    case 'notice':
      terminal.warn(event.text);
      return;
    case 'state':
      terminal.warn(stateLine(event.status));
  }
}

function stateLine({ state, reason }: WorkerStatus): string {
  const why = printable(reason);
  switch (state) {
    case 'working':
      return 'the API answers again';
    case 'down':
      return `the API does not answer (${why}): one image at a time tries whether it does again`;
    case 'token':
      return `the API refuses the token (${why}): this worker takes no more images; stop it and start it with another token`;
    case 'set-up':
      return `the API describes nothing (${why}): this worker takes no more images; stop it and start it with what helps`;
    case 'quota':
      return `the API says that the quota is spent (${why}): this worker takes no more images; start it again when there is credit`;
  }
}
