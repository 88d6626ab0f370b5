import { startDashboard } from '../dashboard/dashboard.js';
import { DASHBOARD_DEFAULTS, credentialsOf, refuseOpenDashboard } from '../dashboard/dashboard-options.js';
import { RUN_DEFAULTS } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import { openQueue } from '../shared/queue/connection.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { troubleText } from '../shared/queue/outage.js';
import { UndoStack } from '../shared/undo.js';
import { createCommandLogger } from './command-logger.js';
import { portOf } from './dashboard-flags.js';
import { type FlagTable, parseFlags } from './flags.js';
import { ACCOUNT_FLAGS, OUTPUT_FLAGS, parseLogLevel } from './run-flags.js';
import { listenForSignals, untilTold } from './signals.js';
import { Terminal } from './terminal.js';

const DASHBOARD_FLAGS = {
  queue: ACCOUNT_FLAGS.queue,
  host: { takes: 'value' },
  port: { takes: 'value' },
  'read-only': { takes: 'nothing' },
  quiet: OUTPUT_FLAGS.quiet,
  'log-level': OUTPUT_FLAGS['log-level'],
  help: OUTPUT_FLAGS.help,
} as const satisfies FlagTable;

/** `bulk-describe dashboard`: serves a queue's pages until it is told to stop. @returns 0 */
export async function dashboardCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('dashboard', argv, DASHBOARD_FLAGS, env);
  const [extra] = flags.positionals;
  if (extra !== undefined) throw new UsageError(`dashboard takes no argument: ${extra}`);
  const host = flags.get('host') ?? DASHBOARD_DEFAULTS.host;
  const portText = flags.get('port');
  const port = portText === undefined ? undefined : portOf(portText, '--port');
  const credentials = credentialsOf(env);
  refuseOpenDashboard(host, credentials);
  const target = parseQueueUrl(flags.get('queue') ?? RUN_DEFAULTS.queue, env);
  if (target.kind === 'embedded') {
    throw new UsageError(
      'the embedded queue belongs to the process that runs: start its dashboard with `run --dashboard`, or name a ' +
        'queue that several processes share with --queue redis://<host> or QUEUE_URL',
    );
  }
  const terminal = new Terminal(process.stderr, { quiet: flags.has('quiet'), progress: false });
  const logger = createCommandLogger(parseLogLevel(flags.get('log-level')), terminal);
  const undo = new UndoStack();
  const signals = listenForSignals(() => undefined);
  undo.defer(() => signals.dispose());
  try {
    const connection = await openQueue(target, { logger, isShared: true });
    undo.defer(() => connection.close());
    connection.onTrouble((...trouble) => terminal.warn(troubleText(...trouble)));
    const readOnly = flags.has('read-only');
    const dashboard = await startDashboard(connection, { host, port, readOnly, credentials, logger });
    undo.defer(() => dashboard.close());
    process.stdout.write(`${dashboard.url}\n`);
    await untilTold(signals.signal);
    return 0;
  } finally {
    await undo.release();
  }
}
