import { plural } from '../dashboard/texts.js';
import { type WorkerEvent, startAccountWorker } from '../run/account-worker.js';
import { type ApiOptions, accountOf, checkApi } from '../run/api-options.js';
import { openImageRoot } from '../run/prepare.js';
import { describeQueueName } from '../shared/account.js';
import { type Limits, formatRate } from '../shared/limits.js';
import { queueTrouble } from '../service/troubles.js';
import { startHealthServer } from '../shared/http-server.js';
import type { WorkerStatus } from '../shared/published.js';
import type { DescribeWorker } from '../worker/describe-worker.js';
import { companionsOf } from './companions.js';
import type { OptionsOf } from './options.js';
import { type AccountOptions, accountOptionsOf, limitsWarning } from './settings.js';
import { type Service, runUntilStopped } from './process.js';
import { Terminal } from './terminal.js';
import { printable } from './text.js';

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
    await startHealth(options, service, terminal, {
      worker: started,
      takenFrom: [describeQueueName(accountOf(api))],
    });
  });
}

/**
 * Answers liveness and readiness, if the options ask for it.
 * @param work this process's worker, if it has one, and the queues that it takes work from
 */
export async function startHealth(
  { healthPort: port, healthHost: host = '127.0.0.1' }: OptionsOf<'worker'>,
  { connection, undo, signal }: Service,
  terminal: Terminal,
  {
    worker,
    takenFrom,
  }: { readonly worker: DescribeWorker | undefined; readonly takenFrom: readonly string[] },
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
export async function startWorker(
  { connection, undo }: Service,
  api: AccountOptions,
  terminal: Terminal,
): Promise<DescribeWorker> {
  const onEvent = (event: WorkerEvent) => showEvent(event, terminal, api);
  return await startAccountWorker(connection, api, undo, { logger: terminal.logger, onEvent });
}

function showEvent(event: WorkerEvent, terminal: Terminal, api: ApiOptions): void {
  switch (event.type) {
    case 'limits': {
      terminal.say(limitsLine(event.limits, event.workers));
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

function limitsLine({ rate, maxInFlight }: Limits, workers: number): string {
  return (
    `limits of the account: ${formatRate(rate)}, ${maxInFlight} in flight, over ${plural(workers, 'worker')}; ` +
    'more workers do not raise them'
  );
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
