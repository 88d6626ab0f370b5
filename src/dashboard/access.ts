import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { UsageError } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';

interface Credentials {
  readonly user: string;
  readonly password: string;
}

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
  /** Real paths of the folders whose images are shown; none. */
  readonly imageRoots?: readonly string[] | undefined;
  /**
   * The real path of a run's output, where its results may be shown, else it throws a UsageError that says why not; nothing is
   * shown of any without it. What runs publish may be forged.
   */
  readonly mayRead?: ((output: string) => Promise<string>) | undefined;
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

/**
 * Whether a request is let through: undefined, or why it is not.
 *
 * Browsers send basic auth, and reach this machine, on behalf of any page that is open in them. So writes have to come
 * from the dashboard's own pages; and where there is no password, the name by which the server was called has to be
 * this machine's, or a foreign page could have its own name resolved to it (DNS rebinding).
 */
export function refuseRequest(
  request: { readonly method: string; readonly headers: IncomingHttpHeaders },
  { credentials, readOnly = false }: Pick<DashboardOptions, 'credentials' | 'readOnly'>,
): { status: 401 | 403 | 405; reason: string } | undefined {
  const host = request.headers.host ?? '';
  if (credentials === undefined && !isLoopbackName(hostnameOf(host))) {
    return {
      status: 403,
      reason: 'this dashboard is for this machine alone: call it by 127.0.0.1 or localhost',
    };
  }
  if (credentials !== undefined && !isAuthorized(request.headers.authorization, credentials)) {
    return { status: 401, reason: 'user and password, please' };
  }
  if (request.method === 'GET' || request.method === 'HEAD') return undefined;
  if (readOnly) return { status: 405, reason: 'nothing can be changed here' };
  if (isCrossSite(request.headers)) {
    return { status: 403, reason: 'writes are taken from the pages of this dashboard only' };
  }
  return undefined;
}

/** Checks basic auth in a time that does not depend on what is wrong. */
export function isAuthorized(header: string | undefined, { user, password }: Credentials): boolean {
  const encoded = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(header ?? '')?.[1] ?? '';
  const given = Buffer.from(encoded, 'base64').toString('utf8');
  // Equally long whatever was given; the colon cannot be part of the user.
  const digest = (text: string) => hash('sha256', text, 'buffer');
  return timingSafeEqual(digest(given), digest(`${user}:${password}`));
}

/**
 * Whether a write may come from a page of somebody else. Browsers name the page's origin with every write; what is no
 * browser (curl) names none, and acts for nobody but itself.
 */
function isCrossSite(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site'];
  // A page cannot forge it, and a proxy may call this server by another name than the browser does.
  if (site !== undefined) return site !== 'same-origin';
  const { origin, host } = headers;
  if (origin === undefined) return false;
  return !URL.canParse(origin) || new URL(origin).host.toLowerCase() !== (host ?? '').toLowerCase();
}

/** Whether an address or a name is this machine's own and cannot be reached from another one. */
export function isLoopbackName(name: string): boolean {
  const bare = name.toLowerCase().replace(/^\[|\]$/g, '');
  return bare === 'localhost' || bare === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(bare);
}

/** The name or address in a `Host` header, without its port. */
function hostnameOf(host: string): string {
  return /^(\[[^\]]*\]|[^:]*)(?::\d+)?$/.exec(host)?.[1] ?? '';
}
