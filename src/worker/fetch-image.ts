import { type LookupAddress, type LookupOptions, lookup as lookupName } from 'node:dns';
import { BlockList, isIP } from 'node:net';
import pLimit, { type LimitFunction } from 'p-limit';
import { type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { backoffMs } from '../describe-api/attempt-policy.js';
import { isMomentary } from '../describe-api/http.js';
import { firstValues, retryAfterIn } from '../describe-api/retry-after.js';
import { messageOf } from '../shared/errors.js';
import { sleep } from '../shared/waiting.js';
import { BadImageError, IMAGE_DEFAULTS, type ImageOptions } from '../shared/prepare-image.js';

const MOST_REDIRECTS = 5;
const TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
const AT_A_TIME_PER_HOST = 4;
const AT_A_TIME = 16;
/** A host that asks for more is not waited for by an image that holds a place. */
const LONGEST_WAIT_MS = 60_000;
/** A HEAD that is answered so may be all that the host refuses: signatures are for GET. */
const HEAD_REFUSED: ReadonlySet<number> = new Set([400, 401, 403, 405, 501]);

/** Addresses of networks that are not the internet: what a manifest names there is not to be had by whoever wrote it. */
const PRIVATE = new BlockList();
const PRIVATE_IPV4 =
  '0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15 224.0.0.0/4 240.0.0.0/4';
/** Those that hold an IPv4 address within are here too. */
const PRIVATE_IPV6 =
  '::/96 64:ff9b::/96 64:ff9b:1::/48 2001::/32 2002::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8';
for (const [family, ranges] of [['ipv4', PRIVATE_IPV4] as const, ['ipv6', PRIVATE_IPV6] as const]) {
  for (const range of ranges.split(' ')) {
    const [net = '', bits] = range.split('/');
    PRIVATE.addSubnet(net, Number(bits), family);
  }
}

export function isPrivateAddress(address: string): boolean {
  return PRIVATE.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

/** It would be fetched with `--allow-private`. */
export class PrivateImageError extends BadImageError {
  override name = 'PrivateImageError';

  constructor(host: string) {
    super(`${host} is in a private network, where images are fetched only with --allow-private`);
  }
}

type Answer = Dispatcher.ResponseData;
type Ask<T> = (url: URL, signal: AbortSignal) => Promise<T | URL>;

/** What a host says of an image, as far as it does. */
export interface ImageHead {
  readonly type: string | undefined;
  readonly bytes: number | undefined;
}

/** Loads images from the web for an API that does not do so itself, or looks whether they are there. */
export class ImageFetcher {
  readonly #agent: EnvHttpProxyAgent;
  readonly #all = pLimit(AT_A_TIME);
  readonly #hosts = new Map<string, LimitFunction>();

  constructor(
    private readonly options: Pick<ImageOptions, 'allowPrivate' | 'maxBytes'>,
    private readonly timeoutMs = TIMEOUT_MS,
  ) {
    // Judged by the address that is connected to, so that no name leads elsewhere after the look.
    const guarded = options.allowPrivate === true ? {} : { lookup: lookupPublic };
    // A proxy resolves names itself, and knows what it may reach. Many tunnel to port 443 alone: http:// goes without one.
    this.#agent = new EnvHttpProxyAgent({
      connect: { timeout: CONNECT_TIMEOUT_MS, ...guarded },
      proxyTunnel: false,
    });
  }

  /**
   * @param attempts how often a host that fails for the moment is asked
   * @throws {BadImageError} when it is not to be had
   * @throws the signal's reason when it aborts
   */
  async fetch(url: string, attempts: number, signal: AbortSignal): Promise<Buffer> {
    return await this.#repeat(url, attempts, signal, (at, either) =>
      this.#ask(at, either, {}, (answer) => {
        if (answer.statusCode !== 200) throw refusalBy(at, answer);
        return this.#readBody(answer.body);
      }),
    );
  }

  /** Asks for an image without loading it; as `fetch` does otherwise. */
  async look(url: string, attempts: number, signal: AbortSignal): Promise<ImageHead> {
    return await this.#repeat(url, attempts, signal, async (at, either) => {
      const read = (answer: Answer) => headIn(at, answer);
      const head = await this.#ask(at, either, { method: 'HEAD' }, (answer) =>
        HEAD_REFUSED.has(answer.statusCode) ? undefined : read(answer),
      );
      return head ?? (await this.#ask(at, either, { headers: { range: 'bytes=0-0' } }, read));
    });
  }

  async #repeat<T>(url: string, attempts: number, signal: AbortSignal, ask: Ask<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#inTurn(new URL(url), signal, ask);
      } catch (error) {
        signal.throwIfAborted();
        const afterMs = error instanceof BadImageError ? error.retryAfterMs : undefined;
        if (afterMs === undefined || attempt >= attempts) throw error;
        const waitMs = Math.max(afterMs, backoffMs(attempt, Math.random()));
        await sleep(Math.min(LONGEST_WAIT_MS, waitMs), signal);
        signal.throwIfAborted();
      }
    }
  }

  async #inTurn<T>(url: URL, signal: AbortSignal, ask: Ask<T>): Promise<T> {
    const limit = this.#hosts.get(url.host) ?? pLimit(AT_A_TIME_PER_HOST);
    this.#hosts.set(url.host, limit);
    try {
      return await limit(() => this.#all(() => this.#follow(url, signal, ask)));
    } finally {
      if (limit.activeCount + limit.pendingCount === 0) this.#hosts.delete(url.host);
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #follow<T>(start: URL, signal: AbortSignal, ask: Ask<T>): Promise<T> {
    const { timeoutMs } = this;
    const timeout = AbortSignal.timeout(timeoutMs);
    const either = AbortSignal.any([signal, timeout]);
    let url = start;
    try {
      for (let redirects = 0; ; redirects++) {
        const found = await ask(url, either);
        if (!(found instanceof URL)) return found;
        if (redirects === MOST_REDIRECTS)
          throw new BadImageError(`more than ${MOST_REDIRECTS} redirects, the last one to ${found.href}`);
        url = found;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof BadImageError) throw error;
      if (timeout.aborted)
        throw new BadImageError(`${url.host} did not deliver it within ${timeoutMs / 1000} s`, 0);
      // Of several addresses that were tried the first one's.
      const first: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
      throw new BadImageError(`${url.host} cannot be reached: ${messageOf(first)}`, 0);
    }
  }

  /** @returns what is read in the answer, or where the image is */
  async #ask<T>(
    url: URL,
    signal: AbortSignal,
    { method = 'GET', headers }: { method?: 'GET' | 'HEAD'; headers?: Readonly<Record<string, string>> },
    read: (answer: Answer) => T | Promise<T>,
  ): Promise<T | URL> {
    this.#refuse(url);
    const answer = await request(url, {
      ...{ dispatcher: this.#agent, method, signal },
      headers: { accept: 'image/*,*/*;q=0.5', 'user-agent': 'bulk-describe', ...headers },
    });
    const { statusCode, body } = answer;
    try {
      const answered = firstValues(answer.headers);
      const { location } = answered;
      if (statusCode >= 300 && statusCode < 400 && location !== undefined) {
        if (URL.canParse(location, url.href)) return new URL(location, url);
        throw new BadImageError(`${url.host} redirects to what is no URL`);
      }
      const isRefusedHead = method === 'HEAD' && HEAD_REFUSED.has(statusCode);
      // Other failing statuses are about the image.
      if (isMomentary(statusCode) && !isRefusedHead)
        throw refusalBy(url, answer, retryAfterIn(answered, Date.now()) ?? 0);
      return await read(answer);
    } finally {
      body.on('error', () => undefined).destroy();
    }
  }

  async #readBody(body: AsyncIterable<unknown>): Promise<Buffer> {
    const { maxBytes = IMAGE_DEFAULTS.maxBytes } = this.options;
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of body) {
      if (!Buffer.isBuffer(chunk)) continue;
      chunks.push(chunk);
      bytes += chunk.length;
      // No further: whatever `Content-Length` says.
      if (bytes > maxBytes) break;
    }
    return Buffer.concat(chunks);
  }

  /** An address in a URL is looked up by nobody. */
  #refuse({ protocol, hostname }: URL): void {
    if (protocol !== 'http:' && protocol !== 'https:')
      throw new BadImageError(`it redirects to ${protocol}, and only http(s) is followed`);
    const address = hostname.replace(/^\[|\]$/g, '');
    const isLocal =
      isIP(address) === 0 ? /^localhost\.?$|\.localhost\.?$/i.test(address) : isPrivateAddress(address);
    if (isLocal && this.options.allowPrivate !== true) throw new PrivateImageError(hostname);
  }
}

function refusalBy({ host }: URL, { statusCode }: Answer, retryAfterMs?: number): BadImageError {
  return new BadImageError(`${host} answers ${statusCode}`, retryAfterMs);
}

/** Of the answer to a range, `content-range` has the size of the whole. */
function headIn(url: URL, answer: Answer): ImageHead {
  const { statusCode, headers } = answer;
  if (statusCode !== 200 && statusCode !== 206) throw refusalBy(url, answer);
  const {
    'content-type': type,
    'content-length': length,
    'content-range': range = '',
  } = firstValues(headers);
  const size = statusCode === 206 ? /\/(\d+)$/.exec(range)?.[1] : length;
  return { type, bytes: size === undefined ? undefined : Number(size) };
}

type LookedUp = (error: Error | null, address: string | LookupAddress[], family?: number) => void;

/** Gives the public addresses of a name alone. */
function lookupPublic(hostname: string, options: LookupOptions, callback: LookedUp): void {
  lookupName(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) {
      callback(error, []);
      return;
    }
    const allowed = addresses.filter(({ address }) => !isPrivateAddress(address));
    const [first] = allowed;
    if (first === undefined) callback(new PrivateImageError(hostname), []);
    else if (options.all === true) callback(null, allowed);
    else callback(null, first.address, first.family);
  });
}
