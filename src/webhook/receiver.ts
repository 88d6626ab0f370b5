import type { FastifyInstance, FastifyReply } from 'fastify';
import { UsageError, messageOf } from '../shared/errors.js';
import { type HttpServer, type ListenAddress, createPublicServer, listen } from '../shared/http-server.js';
import type { Logger } from '../shared/log.js';
import type { SharedStore } from '../shared/queue/store.js';
import { unlessAborted } from '../shared/waiting.js';
import { type CallbackKeys, callbackKeys } from './callback-keys.js';
import { type DeliveryClaim, putDelivery, readClaim } from './deliveries.js';

interface ReceiverOptions extends ListenAddress {
  readonly keys: CallbackKeys;
  /** Takes a delivery in. It is answered without waiting for what becomes of it. */
  readonly onDelivery: (claim: DeliveryClaim) => void;
}

const BODY_LIMIT_BYTES = 256 * 1024;
/** Deliveries that are on their way into the store at most; while it is away more are dropped, and polls find them. */
const MOST_PENDING = 10_000;
const CLOSE_DEADLINE_MS = 2000;

/** Reads `127.0.0.1:8787`, `[::1]:8787`. @throws {UsageError} for anything else */
export function parseListenAddress(text: string, source: string): ListenAddress {
  const [, bracketed, plain, digits] = /^(?:\[([\da-f:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/i.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined || port > 65_535) {
    throw new UsageError(`${source} ${text}: expected <host>:<port>, such as 127.0.0.1:8787`);
  }
  return { host, port };
}

/** What a person should know of an address that others can reach; undefined for one that only this machine can. */
export function openAddressWarning({ host }: ListenAddress): string | undefined {
  if (/^(127(\.\d{1,3}){3}|::1|localhost)$/i.test(host)) return undefined;
  return `warning: deliveries are received at ${host} without TLS, where others can reach it: have a proxy with TLS before it`;
}

/** Starts a receiver that puts the deliveries of an account into the queue's store. */
export async function startAccountReceiver(options: {
  readonly store: SharedStore;
  /** The account's describe queue. */
  readonly queueName: string;
  /** The user's; else the one that the store keeps. */
  readonly secret: string | undefined;
  readonly listen: ListenAddress;
  readonly logger: Logger;
}): Promise<Pick<HttpServer, 'url' | 'close'> & { readonly keys: CallbackKeys }> {
  const { store, queueName, logger } = options;
  const keys = await callbackKeys(store, queueName, options.secret);
  const pending = new Set<Promise<void>>();
  const onDelivery = (claim: DeliveryClaim) => {
    if (pending.size >= MOST_PENDING) return;
    const stored: Promise<void> = putDelivery(store, queueName, claim)
      .catch((error: unknown) => {
        logger.warn({ error: messageOf(error) }, 'a delivery could not be stored: a poll finds its message');
      })
      .finally(() => pending.delete(stored));
    pending.add(stored);
  };
  const server = await startReceiver({ ...options.listen, keys, onDelivery });
  const close = async () => {
    await server.close();
    await unlessAborted(Promise.all(pending), AbortSignal.timeout(CLOSE_DEADLINE_MS)).catch(() => undefined);
  };
  return { keys, url: server.url, close };
}

/**
 * Starts the receiver of deliveries.
 *
 * Whoever does not name the secret path gets 404, whatever they send. Behind it: 405 for anything but POST, 413 for
 * more than 256 KB, 400 for what is no JSON object with a ref or a message id, else 200 at once. Bodies are read for
 * these two facts, and neither kept nor logged.
 * @throws {UsageError} when the address cannot be listened on
 */
export async function startReceiver({ keys, onDelivery, ...address }: ReceiverOptions): Promise<HttpServer> {
  const app = createApp();
  app.addHook('onRequest', async ({ originalUrl, method }, reply) => {
    if (ownPath(originalUrl, keys) === undefined) return refuse(reply, 404);
    if (method !== 'POST') return refuse(reply.header('allow', 'POST'), 405);
    return undefined;
  });
  app.post('/', ({ originalUrl, body }, reply) => {
    const claim = readClaim(typeof body === 'string' ? body : '');
    const named = ownPath(originalUrl, keys)?.ref ?? claim?.ref;
    const ref = named !== undefined && keys.isOwnRef(named) ? named : undefined;
    if (claim === undefined || (ref === undefined && claim.messageId === undefined))
      return refuse(reply, 400);
    if (claim.isWorking !== true) onDelivery({ ref, messageId: claim.messageId });
    return reply.send({});
  });
  return listen(app, address, '--webhook-listen');
}

function createApp(): FastifyInstance {
  const app = createPublicServer({ bodyLimit: BODY_LIMIT_BYTES });
  // Whatever the body is said to be, only its text counts.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body));
  app.setNotFoundHandler((_request, reply) => refuse(reply, 404));
  app.setErrorHandler((error, _request, reply) => {
    const isTooLong = error instanceof Error && 'statusCode' in error && error.statusCode === 413;
    return refuse(reply, isTooLong ? 413 : 400);
  });
  return app;
}

/** The connection ends with a refusal. */
function refuse(reply: FastifyReply, status: 400 | 404 | 405 | 413): FastifyReply {
  return reply.code(status).headers({ connection: 'close', 'content-length': '0' }).send();
}

/** Reads `.../<secret>` and `.../<secret>/<ref>`, whatever a proxy has left before it; undefined for strangers. */
function ownPath(url: string, keys: CallbackKeys): { ref: string | undefined } | undefined {
  const segments = (url.split(/[?#]/, 1)[0] ?? '').split('/').slice(-2);
  const [last = '', before = ''] = segments.reverse();
  // Both are always looked at: how long that takes tells nothing.
  const isBase = keys.isOwnSegment(last);
  const isNamed = keys.isOwnSegment(before) && keys.isOwnRef(last);
  if (isNamed) return { ref: last };
  return isBase ? { ref: undefined } : undefined;
}
