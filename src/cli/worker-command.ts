import { type WorkerEvent, startAccountWorker } from '../run/account-worker.js';
import { type ApiOptions, checkApi } from '../run/api-options.js';
import { formatRate } from '../shared/durations.js';
import { UsageError } from '../shared/errors.js';
import type { Limits } from '../shared/limits.js';
import type { WorkerStatus } from '../shared/published.js';
import { type FlagTable, parseFlags } from './flags.js';
import { HEALTH_FLAGS, healthAddressOf, startHealth } from './health-flags.js';
import { ACCOUNT_FLAGS, accountOptionsOf, limitsWarning } from './run-flags.js';
import type { Terminal } from './terminal.js';
import { plural, printable } from './text.js';
import { webhookCompanion } from './webhook-flags.js';
import { SERVICE_FLAGS, runUntilTold, talkOf } from './until-told.js';

const WORKER_FLAGS = {
  ...ACCOUNT_FLAGS,
  ...HEALTH_FLAGS,
  ...SERVICE_FLAGS,
} as const satisfies FlagTable;

/** `bulk-describe worker`: works for everybody's runs until it is told to stop. @returns 0 */
export async function workerCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('worker', argv, WORKER_FLAGS, env);
  const [extra] = flags.positionals;
  if (extra !== undefined) {
    throw new UsageError(
      `worker takes no argument: ${extra} (runs are fed by \`run --no-work\` or \`serve\`)`,
    );
  }
  const options = accountOptionsOf(flags, env);
  healthAddressOf(flags);
  checkApi(options);
  const { terminal, logger } = talkOf(flags);
  const startReceiver = await webhookCompanion(flags, options, {
    logger,
    onStarted: (url) => terminal.say(`webhooks ${url}`),
    warn: (text) => terminal.warn(text),
  });
  const goodbye = 'finishing what is on the wire, handing the rest back';
  return runUntilTold('worker', { flags, env, terminal, logger, goodbye }, async (service) => {
    const { connection, undo, signal } = service;
    if (startReceiver !== undefined) undo.defer(await startReceiver(connection));
    const onEvent = (event: WorkerEvent) => showWorkerEvent(event, terminal, options);
    const worker = await startAccountWorker(connection, options, { logger, onEvent });
    undo.defer(() => worker.stop());
    const notReady = () => (signal.aborted ? 'it is stopping' : notWorking(worker.status));
    const health = await startHealth(flags, connection, notReady, undo);
    if (health !== undefined) terminal.say(health);
  });
}

/** What a worker says of itself, to people. */
export function showWorkerEvent(event: WorkerEvent, terminal: Terminal, options: ApiOptions): void {
  switch (event.type) {
    case 'limits': {
      terminal.say(limitsLine(event.limits, event.workers));
      const warning = limitsWarning(event.limits, options);
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
