import type { DescribeWorker } from '../worker/describe-worker.js';
import { accountOf, checkApi } from '../run/api-options.js';
import { RootFolder } from '../service/root-folder.js';
import type { ServerEvent } from '../service/running-request.js';
import { RunsServer } from '../service/server.js';
import { describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { UsageError } from '../shared/errors.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import { companionsOf } from './companions.js';
import type { OptionsOf } from './options.js';
import { type AccountOptions, accountOptionsOf } from './settings.js';
import { runUntilStopped } from './process.js';
import { Terminal } from './terminal.js';
import { listOf, nearPath, printable } from './text.js';
import { startHealth, startWorker } from './worker.js';

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
    await startHealth(options, service, terminal, {
      worker,
      takenFrom: worker === undefined ? [RUNS_QUEUE] : [RUNS_QUEUE, queueName],
    });
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
  const { receipt, exitCode, reason } = outcome;
  const why = reason === undefined ? '' : `: ${printable(reason, 500)}`;
  if (receipt === undefined) {
    return `${outcome.outcome}: ${printable(name, 500)} (exit code ${exitCode})${why}`;
  }
  const { described, resumed, copied, failed, remaining } = receipt;
  const counts = Object.entries({ described, resumed, copied, failed, remaining });
  const parts = counts.map(([name, value]) => value > 0 && `${value} ${name}`);
  return `run ${receipt.run} has ended with exit code ${exitCode}: ${listOf(parts)}${why}`;
}
