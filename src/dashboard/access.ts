import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/** A request as far as access depends on it. */
export interface AccessRequest {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
}

export interface Refusal {
  readonly status: 401 | 403 | 405;
  readonly reason: string;
}

export interface AccessRules {
  readonly credentials: Credentials | undefined;
  readonly readOnly: boolean;
}

/**
 * Whether a request is let through: undefined, or why it is not.
 *
 * Browsers send basic auth, and reach this machine, on behalf of any page that is open in them. So writes have to come
 * from the dashboard's own pages; and where there is no password, the name by which the server was called has to be
 * this machine's, or a foreign page could have its own name resolved to it (DNS rebinding).
 */
export function refuseRequest(request: AccessRequest, rules: AccessRules): Refusal | undefined {
  const { credentials, readOnly } = rules;
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
  if (readOnly) return { status: 405, reason: 'this dashboard is read-only' };
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
  return timingSafeEqual(digest(given), digest(`${user}:${password}`));
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * Whether a write may come from a page of somebody else. Browsers name the page's origin with every write; what is no
 * browser (curl) names none, and acts for nobody but itself.
 */
export function isCrossSite(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin') return true;
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
