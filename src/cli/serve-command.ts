import { type AccountWorker, startAccountWorker } from '../run/account-worker.js';
import { accountOf, checkApi } from '../run/api-options.js';
import { RunsServer, type ServerEvent } from '../service/server.js';
import { RootFolder } from '../service/root-folder.js';
import { describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { UsageError } from '../shared/errors.js';
import { DASHBOARD_FLAG, dashboardCompanion } from './dashboard-flags.js';
import { type FlagTable, parseFlags } from './flags.js';
import { HEALTH_FLAGS, healthAddressOf, startHealth } from './health-flags.js';
import { ACCOUNT_FLAGS, accountOptionsOf } from './run-flags.js';
import type { Terminal } from './terminal.js';
import { listOf, nearPath, printable } from './text.js';
import { notWorking, showWorkerEvent } from './worker-command.js';
import { webhookCompanion } from './webhook-flags.js';
import { SERVICE_FLAGS, runUntilTold, talkOf } from './until-told.js';

const SERVE_FLAGS = {
  ...ACCOUNT_FLAGS,
  ...HEALTH_FLAGS,
  root: { takes: 'value' },
  work: { takes: 'nothing' },
  'on-done': { takes: 'value' },
  ...DASHBOARD_FLAG,
  ...SERVICE_FLAGS,
} as const satisfies FlagTable;

/** `bulk-describe serve`: executes enqueued and scheduled runs until it is told to stop. @returns 0 */
export async function serveCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('serve', argv, SERVE_FLAGS, env);
  const [extra] = flags.positionals;
  if (extra !== undefined) {
    throw new UsageError(
      `serve takes no argument: ${extra} (hand runs to it with \`bulk-describe enqueue\`)`,
    );
  }
  const options = accountOptionsOf(flags, env);
  healthAddressOf(flags);
  if (flags.has('work')) checkApi(options);
  else if (options.webhooks !== undefined && !flags.has('webhook-listen')) {
    throw new UsageError(
      '--webhook-url is for workers: give serve --work too, or --webhook-listen to receive for workers elsewhere',
    );
  }
  const queueName = describeQueueName(accountOf(options));
  const root = await RootFolder.open(flags.get('root') ?? '.');
  const { terminal, logger } = talkOf(flags);
  const startDashboard = await dashboardCompanion(flags, env, {
    logger,
    onStarted: (url) => terminal.say(`dashboard ${url}`),
  });
  const startReceiver = await webhookCompanion(flags, options, {
    logger,
    onStarted: (url) => terminal.say(`webhooks ${url}`),
    warn: (text) => terminal.warn(text),
  });
  const goodbye = 'writing what has come and handing the runs back';
  return runUntilTold('serve', { flags, env, terminal, logger, goodbye }, async (service) => {
    const { connection, undo, signal } = service;
    if (startReceiver !== undefined) undo.defer(await startReceiver(connection));
    if (startDashboard !== undefined) undo.defer(await startDashboard(connection));
    let worker: AccountWorker | undefined;
    if (flags.has('work')) {
      worker = await startAccountWorker(connection, options, {
        logger,
        onEvent: (event) => showWorkerEvent(event, terminal, options),
      });
      undo.defer(() => worker?.stop());
    } else if (Object.keys(options.limits ?? {}).length > 0) {
      await AccountLimits.open(connection.store, queueName, options.limits ?? {}, logger);
    }
    const server = await RunsServer.start({
      connection,
      root,
      queue: flags.get('queue') ?? '',
      api: options,
      env,
      logger,
      onDone: flags.get('on-done'),
      onEvent: (event) => showServerEvent(event, terminal),
    });
    undo.defer(() => server.stop());
    terminal.say(`home of ${root.path}: takes runs from ${connection.label}`);
    const notReady = () =>
      signal.aborted ? 'it is stopping' : worker === undefined ? undefined : notWorking(worker.status);
    const health = await startHealth(flags, connection, notReady, undo);
    if (health !== undefined) terminal.say(health);
  });
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
      terminal.say(`handed back: ${event.output}`);
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
