import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { FatalError, UsageError, isSystemError, messageOf } from '../shared/errors.js';
import type { CallbackKeys } from '../shared/deliveries/callback-keys.js';
import type { DeliveryClaim } from '../shared/deliveries/delivery-box.js';
import type { ListenAddress } from './listen-address.js';
import { readBody } from './read-body.js';
import { readClaim } from './read-claim.js';

export interface ReceiverOptions extends ListenAddress {
  readonly keys: CallbackKeys;
  /** Takes a delivery in. It is answered without waiting for what becomes of it. */
  readonly onDelivery: (claim: DeliveryClaim) => void;
}

export interface Receiver {
  /** Where it listens, without the secret path: `http://127.0.0.1:8787`. */
  readonly url: string;
  close(): Promise<void>;
}

/** More connections at a time are refused; one that does not get on is ended. */
const MOST_CONNECTIONS = 256;
const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
const MOST_HEADER_BYTES = 16 * 1024;
const MOST_IGNORED_BYTES = 1024 * 1024;

/**
 * Starts the receiver of deliveries.
 *
 * Whoever does not name the secret path gets 404, whatever they send. Behind it: 405 for anything but POST, 413 for
 * more than 256 KB, 400 for what is no JSON object with a ref or a message id, else 200 at once. Bodies are read for
 * these two facts, and neither kept nor logged.
 * @throws {UsageError} when the address cannot be listened on
 */
export async function startReceiver(options: ReceiverOptions): Promise<Receiver> {
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: MOST_HEADER_BYTES,
      // Node.js would say 400 to a stranger who leaves it out.
      requireHostHeader: false,
    },
    (request, response) => {
      void handle(request, response, options);
    },
  );
  // Node.js would say 100 or 417 to strangers: nothing of that is said before they have named the path.
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    void handle(request, response, options, () => response.writeContinue());
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    void handle(request, response, options);
  });
  server.maxConnections = MOST_CONNECTIONS;
  // Garbage that is no HTTP: Node.js would answer some of it, and tell strangers about the parser.
  server.on('clientError', (_error, socket) => socket.destroy());
  const port = await listen(server, options);
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  return { url: `http://${host}:${port}`, close: () => close(server) };
}

async function listen(server: Server, { host, port }: ListenAddress): Promise<number> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, resolve);
    });
    server.removeAllListeners('error');
    // A connection that could not be accepted is no reason to end.
    server.on('error', () => undefined);
  } catch (error) {
    const reason = isSystemError(error) && error.code === 'EADDRINUSE' ? 'it is in use' : messageOf(error);
    throw new UsageError(`--webhook-listen ${host}:${port}: ${reason}; name another address`, {
      cause: error,
    });
  }
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new FatalError('the receiver has no address');
  return address.port;
}

async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  options: ReceiverOptions,
  goOn: () => void = () => undefined,
): Promise<void> {
  try {
    const status = await takeIn(request, options, goOn);
    if (status === 'broken') request.destroy();
    else if (status === 200) response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    else refuse(request, response, status);
  } catch {
    // Whatever somebody sends: this connection ends, and nothing else.
    request.destroy();
  }
}

type Status = 200 | 400 | 404 | 405 | 413;

/** @param goOn tells a caller who waits for that to send the body */
async function takeIn(
  request: IncomingMessage,
  options: ReceiverOptions,
  goOn: () => void,
): Promise<Status | 'broken'> {
  const { keys } = options;
  const path = ownPath(request.url ?? '', keys);
  if (path === undefined) return 404;
  if (request.method !== 'POST') return 405;
  const body = await readBody(request, goOn);
  if (body.end !== 'whole') return body.end === 'too-long' ? 413 : 'broken';
  const claim = readClaim(body.text);
  if (claim === undefined) return 400;
  const ref = path.ref ?? (claim.ref !== undefined && keys.isOwnRef(claim.ref) ? claim.ref : undefined);
  if (ref === undefined && claim.messageId === undefined) return 400;
  options.onDelivery({ ref, messageId: claim.messageId });
  return 200;
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

/** The connection ends with a refusal; what it still sends is read to nowhere, and not for long. */
function refuse(request: IncomingMessage, response: ServerResponse, status: Status): void {
  const allow = status === 405 ? { allow: 'POST' } : {};
  response.writeHead(status, { ...allow, connection: 'close', 'content-length': 0 }).end();
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MOST_IGNORED_BYTES) request.destroy();
  });
  request.resume();
}
