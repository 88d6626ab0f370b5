import { RUN_DEFAULTS, type Companion } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import type { OptionsOf } from './options.js';
import { runUntilStopped } from './process.js';
import { type Talk, createTalk } from './terminal.js';

/** `bulk-describe dashboard`: serves a queue's pages until it is stopped. @returns 0 */
export async function dashboard(options: OptionsOf<'dashboard'>): Promise<number> {
  const { DASHBOARD_DEFAULTS, credentialsOf, refuseOpenDashboard } = await import('../dashboard/access.js');
  const { host = DASHBOARD_DEFAULTS.host, port, readOnly, queue } = options;
  const credentials = credentialsOf(process.env);
  refuseOpenDashboard(host, credentials);
  if (parseQueueUrl(queue ?? RUN_DEFAULTS.queue, process.env).kind === 'embedded') {
    throw new UsageError(
      'the embedded queue belongs to the process that runs: start its dashboard with `run --dashboard`, or name a ' +
        'queue that several processes share with --queue redis://<host> or QUEUE_URL',
    );
  }
  const talk = createTalk(options);
  return runUntilStopped({ command: 'dashboard' }, queue, talk, async ({ connection, undo }) => {
    const { startDashboard } = await import('../dashboard/dashboard.js');
    const { logger } = talk;
    const started = await startDashboard(connection, { host, port, readOnly, credentials, logger });
    undo.defer(() => started.close());
    process.stdout.write(`${started.url}\n`);
  });
}

/**
 * What `--dashboard[=<port>]` starts beside a run: the dashboard of its queue, for this machine.
 * @returns undefined without the flag
 * @throws {UsageError} for half a pair of user and password
 */
export async function dashboardCompanion(
  { dashboard: flag }: OptionsOf<'serve'>,
  { terminal, logger }: Talk,
): Promise<Companion | undefined> {
  if (flag === undefined) return undefined;
  const { credentialsOf } = await import('../dashboard/access.js');
  const credentials = credentialsOf(process.env);
  return async (connection) => {
    const { startDashboard } = await import('../dashboard/dashboard.js');
    const started = await startDashboard(connection, { port: flag.port, credentials, logger });
    terminal.say(`dashboard ${started.url}`);
    return () => started.close();
  };
}
