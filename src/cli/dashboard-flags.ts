import type { Companion } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { FlagTable, ParsedFlags } from './flags.js';

/** The dashboard in a process that does something else as well. */
export const DASHBOARD_FLAG = {
  dashboard: { takes: 'optional' },
} as const satisfies FlagTable;

const HIGHEST_PORT = 65_535;

/** Reads a port. @throws {UsageError} that names the flag */
export function portOf(text: string, name: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > HIGHEST_PORT) {
    throw new UsageError(`${name} ${text}: expected a port up to ${HIGHEST_PORT}, or 0 for a free one`);
  }
  return port;
}

/**
 * What `--dashboard[=<port>]` starts beside a run: the dashboard of its queue, for this machine.
 * @param onStarted is told where it is
 * @returns undefined without the flag
 * @throws {UsageError} for what is no port, and for half a pair of user and password
 */
export async function dashboardCompanion(
  flags: ParsedFlags<typeof DASHBOARD_FLAG>,
  env: NodeJS.ProcessEnv,
  about: { readonly logger: Logger; readonly onStarted: (url: string) => void },
): Promise<Companion | undefined> {
  const text = flags.get('dashboard');
  if (text === undefined) return undefined;
  const port = text === '' ? undefined : portOf(text, '--dashboard');
  const { credentialsOf } = await import('../dashboard/access.js');
  const credentials = credentialsOf(env);
  return async (connection) => {
    const { startDashboard } = await import('../dashboard/dashboard.js');
    const dashboard = await startDashboard(connection, { port, credentials, logger: about.logger });
    about.onStarted(dashboard.url);
    return () => dashboard.close();
  };
}
