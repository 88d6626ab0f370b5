import { startDashboard } from '../dashboard/dashboard.js';
import { DASHBOARD_DEFAULTS, credentialsOf, refuseOpenDashboard } from '../dashboard/access.js';
import { RUN_DEFAULTS } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { portOf } from './dashboard-flags.js';
import { type FlagTable, parseFlags } from './flags.js';
import { SERVICE_FLAGS, runUntilTold, talkOf } from './until-told.js';

const DASHBOARD_FLAGS = {
  host: { takes: 'value' },
  port: { takes: 'value' },
  'read-only': { takes: 'nothing' },
  ...SERVICE_FLAGS,
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
  const { terminal, logger } = talkOf(flags);
  return runUntilTold('dashboard', { flags, env, terminal, logger }, async ({ connection, undo }) => {
    const readOnly = flags.has('read-only');
    const dashboard = await startDashboard(connection, { host, port, readOnly, credentials, logger });
    undo.defer(() => dashboard.close());
    process.stdout.write(`${dashboard.url}\n`);
  });
}
