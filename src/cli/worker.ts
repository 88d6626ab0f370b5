import { type WorkerEvent, startAccountWorker } from '../run/account-worker.js';
import { type ApiOptions, accountOf, checkApi } from '../run/api-options.js';
import { describeQueueName } from '../shared/account.js';
import { type Limits, formatRate } from '../shared/limits.js';
import { queueTrouble, startHealthServer } from '../shared/http-server.js';
import type { WorkerStatus } from '../shared/published.js';
import type { DescribeWorker } from '../worker/describe-worker.js';
import type { OptionsOf } from './options.js';
import { type AccountOptions, accountOptionsOf, limitsWarning } from './settings.js';
import { type Service, runUntilStopped } from './process.js';
import { type Talk, type Terminal, createTalk } from './terminal.js';
import { plural, printable } from './text.js';
import { webhookCompanion } from './webhook.js';

/** `bulk-describe worker`: works for everybody's runs until it is stopped. @returns 0 */
export async function worker(options: OptionsOf<'worker'>): Promise<number> {
  const api = accountOptionsOf(options);
  checkApi(api);
  const talk = createTalk(options);
  const startReceiver = webhookCompanion(options, api, talk);
  const goodbye = 'finishing what is on the wire, releasing the rest';
  return runUntilStopped({ command: 'worker', goodbye }, options.queue, talk, async (service) => {
    if (startReceiver !== undefined) service.undo.defer(await startReceiver(service.connection));
    const started = await startWorker(service, api, talk);
    await startHealth(options, service, talk, {
      takenFrom: [describeQueueName(accountOf(api))],
      notReady: () => notWorking(started.status),
    });
  });
}

/**
 * Answers liveness and readiness, if the options ask for it.
 * @param work the queues that it takes work from, and why it takes none although they are there
 */
export async function startHealth(
  { healthPort: port, healthHost: host = '127.0.0.1' }: OptionsOf<'worker'>,
  { connection, undo, signal }: Service,
  { terminal }: Talk,
  work: { readonly takenFrom: readonly string[]; readonly notReady: () => string | undefined },
): Promise<void> {
  if (port === undefined) return;
  const why = () => (signal.aborted ? 'it is stopping' : work.notReady());
  const server = await startHealthServer({
    host,
    port,
    notReady: async () => why() ?? (await queueTrouble(connection, work.takenFrom))?.full,
  });
  undo.defer(() => server.close());
  const shown = host.includes(':') ? `[${host}]` : host;
  terminal.say(`health at http://${shown}:${server.port}/healthz and /readyz`);
}

/** Starts a worker in this process, which ends with it; and says what the worker says of itself. */
export async function startWorker(
  { connection, undo }: Service,
  api: AccountOptions,
  { terminal, logger }: Talk,
): Promise<DescribeWorker> {
  const onEvent = (event: WorkerEvent) => showEvent(event, terminal, api);
  return await startAccountWorker(connection, api, undo, { logger, onEvent });
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

/** Why a worker takes no images at the moment; undefined while it does. */
export function notWorking(status: WorkerStatus): string | undefined {
  return status.state === 'working' ? undefined : stateLine(status);
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
      return `${why}: one image at a time tries whether it does again`;
    case 'token':
      return `the API refuses the token (${why}): this worker takes no more images; stop it and start it with another token`;
    case 'quota':
      return `the API says that the quota is spent (${why}): this worker takes no more images; start it again when there is credit`;
  }
}
