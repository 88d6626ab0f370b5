import { UsageError } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { Credentials } from './access.js';
import { isLoopbackName } from './access.js';

/** Where the dashboard listens and who may do what there. */
export interface DashboardOptions {
  /** Address or name to listen on; `127.0.0.1`. Any other than this machine's own needs credentials. */
  readonly host?: string | undefined;
  /** Port; 3100. With 0 it is a free one. */
  readonly port?: number | undefined;
  /** Whether nothing can be changed from here: every write is answered with 405. */
  readonly readOnly?: boolean | undefined;
  /** Who is let in; everybody at this machine when it is not given. */
  readonly credentials?: Credentials | undefined;
  readonly logger?: Logger | undefined;
}

export const DASHBOARD_DEFAULTS = { host: '127.0.0.1', port: 3100 } as const;

/**
 * Reads `DASHBOARD_USER` and `DASHBOARD_PASSWORD`.
 * @throws {UsageError} when only one of them is there
 */
export function credentialsOf(env: NodeJS.ProcessEnv): Credentials | undefined {
  const user = env['DASHBOARD_USER'] ?? '';
  const password = env['DASHBOARD_PASSWORD'] ?? '';
  if (user === '' && password === '') return undefined;
  if (user === '' || password === '') {
    const missing = user === '' ? 'DASHBOARD_USER' : 'DASHBOARD_PASSWORD';
    throw new UsageError(`${missing} is not set: the dashboard needs both a user and a password, or neither`);
  }
  if (user.includes(':')) throw new UsageError('DASHBOARD_USER may not hold a colon: choose another name');
  return { user, password };
}

/** @throws {UsageError} when other machines could reach a dashboard that asks for no password */
export function refuseOpenDashboard(host: string, credentials: Credentials | undefined): void {
  if (credentials !== undefined || isLoopbackName(host)) return;
  throw new UsageError(
    `the dashboard on ${host} could be reached from other machines: set DASHBOARD_USER and DASHBOARD_PASSWORD, ` +
      'or leave --host away',
  );
}
