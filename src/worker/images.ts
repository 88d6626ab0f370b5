import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto';
import { RefusalError } from '../describe-api/errors.js';
import type { Dialect } from '../describe-api/dialects/dialect.js';
import { isOfUrl } from '../describe-api/refusals.js';
import { messageOf } from '../shared/errors.js';
import { type HttpServer, type ListenAddress, createPublicServer, listen } from '../shared/http-server.js';
import type { Logger } from '../shared/log.js';
import {
  BadImageError,
  IMAGE_DEFAULTS,
  type ImageOptions,
  type PreparedImage,
  loadLocal,
  prepareImage,
} from '../shared/prepare-image.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import type { SharedStore } from '../shared/queue/store.js';
import { ImageFetcher } from './fetch-image.js';

/** APIs with chat completions whose servers load URLs, and those that are known not to. Others are tried. */
const KNOWN_TO_TAKE: ReadonlyMap<string, 'url' | 'data'> = new Map([
  ['api.openai.com', 'url'],
  ['openrouter.ai', 'url'],
  ['api.mistral.ai', 'url'],
  ['api.groq.com', 'url'],
  ['simulator', 'url'],
  ['generativelanguage.googleapis.com', 'data'],
]);

function isWebUrl(url: string): boolean {
  return /^https?:/.test(url);
}

/** Whether a refusal may be due to the URL: by its words, or since it says nothing else. */
function mayBeOfUrl(error: unknown): error is RefusalError {
  if (!(error instanceof RefusalError)) return false;
  const { about, reason } = error;
  return about === 'request' || (isOfUrl(reason) && ['image', 'moment', 'set-up'].includes(about));
}

interface ImagesAccount {
  readonly dialect: Pick<Dialect, 'name' | 'takesData'>;
  readonly host: string;
  readonly connection: QueueConnection;
  readonly queueName: string;
  /** Gets what a person should know, such as that images are sent otherwise from now on. */
  readonly onNotice: (text: string) => void;
}

/** Images of one account, as its API takes them: as URLs, or as their bytes in `data:` URIs. */
export class Images {
  #fetcher: ImageFetcher | undefined;
  #hasWarned = false;

  private constructor(
    private readonly options: ImageOptions,
    private readonly account: ImagesAccount,
    /** How those on the web are sent; `undefined`: by URL until that is refused. */
    private sends: 'url' | 'data' | undefined,
    /** Under which images of this machine are served. */
    private readonly urls: ImageUrls | undefined,
  ) {}

  static async open(options: ImageOptions, account: ImagesAccount): Promise<Images> {
    const { dialect, host, connection, queueName } = account;
    const { store } = connection;
    const { send = IMAGE_DEFAULTS.send, publicUrl } = options;
    const urls = publicUrl === undefined ? undefined : await ImageUrls.open(store, queueName, publicUrl);
    let sends = send === 'auto' ? KNOWN_TO_TAKE.get(host) : send;
    if (send === 'auto' && dialect.takesData !== true) sends = 'url';
    if (sends === undefined) {
      const kept = (await store.getFields(imagesRecord(queueName)))['sends'];
      sends = kept === 'url' || kept === 'data' ? kept : undefined;
    }
    return new Images(options, account, sends, urls);
  }

  /** Whether the URL itself is submitted for an image, which costs no time. */
  sendsUrl(url: string): boolean {
    return this.sends !== 'data' && isWebUrl(url);
  }

  /**
   * What is submitted for an image: its URL, its bytes, or a URL at which it is served.
   * @param attempts how often a host that fails is asked
   * @throws {BadImageError} when it cannot be read
   * @throws the signal's reason when it aborts
   */
  async read(url: string, attempts: number, signal: AbortSignal): Promise<string> {
    if (this.sendsUrl(url)) return url;
    const { dialect } = this.account;
    const takesUrlsAlone = this.options.send === 'url' || dialect.takesData !== true;
    if (takesUrlsAlone && (this.urls === undefined || !url.startsWith('file:'))) {
      const what = this.options.send === 'url' ? '--send url' : `the dialect ${dialect.name}`;
      const remedy = 'files are served with --serve-images <host:port> --public-url <url>';
      throw new BadImageError(`${what} sends URLs alone, and it has none: ${remedy}`);
    }
    // One that is served is prepared all the same: what cannot be read is not paid for.
    const { type, bytes } = await this.#prepare(url, attempts, signal);
    if (takesUrlsAlone && this.urls !== undefined) return this.urls.urlOf(url, type);
    return `data:image/${type};base64,${bytes.toString('base64')}`;
  }

  async #prepare(url: string, attempts: number, signal: AbortSignal): Promise<PreparedImage> {
    if (!isWebUrl(url)) return await prepareImage(() => loadLocal(url, this.options), this.options, signal);
    // Its host may take its time, which is nobody's turn; what is on this machine is not read before its turn.
    this.#fetcher ??= new ImageFetcher(this.options);
    const bytes = await this.#fetcher.fetch(url, attempts, signal);
    return await prepareImage(() => bytes, this.options, signal);
  }

  /**
   * Learns from a refusal that the API takes no URLs. What may be about this image alone is believed to be about URLs as
   * long as none has been taken, and if the image is there: of one that is not, the API is right.
   * @param url the image
   * @param sent what was submitted for it
   * @returns whether it is to be submitted again, in another form
   */
  async refusedUrl(error: unknown, url: string, sent: string, signal: AbortSignal): Promise<boolean> {
    if (!isWebUrl(sent) || this.sends === 'url' || !mayBeOfUrl(error)) return false;
    const { reason } = error;
    const { onNotice } = this.account;
    // Those that were under way together are refused together.
    if (this.#isSwitched()) return true;
    try {
      await this.#prepare(url, 1, signal);
    } catch (failure) {
      const why = `if it takes no URLs: the image cannot be sent either: ${messageOf(failure)}`;
      if (!this.#hasWarned && !signal.aborted) onNotice(`the API refuses an image (${reason}); ${why}`);
      this.#hasWarned = true;
      return false;
    }
    if (this.#isSwitched()) return true;
    onNotice(`the API takes no image URLs (${reason}): the images themselves are sent from now on`);
    await this.#learn('data');
    return true;
  }

  #isSwitched(): boolean {
    return this.sends === 'data';
  }

  /** An image was described: as long as nothing is known, by its URL if it has one. */
  async described(url: string): Promise<void> {
    if (this.sends === undefined && isWebUrl(url)) await this.#learn('url');
  }

  async #learn(sends: 'url' | 'data'): Promise<void> {
    this.sends = sends;
    const { connection, queueName } = this.account;
    await retryUntilUp(connection, () => connection.store.setFields(imagesRecord(queueName), { sends }));
  }

  async close(): Promise<void> {
    await this.#fetcher?.close();
  }
}

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const REACHED_WITHIN_MS = 5000;

function imagesRecord(queueName: string): string {
  return `${queueName}:images`;
}

/**
 * Public URLs of images on this machine. Each holds the image's `file:` URL, sealed with a key that all workers of the account
 * share and that the queue keeps: whoever has the URL may load the image, also after a restart, and learns no path from it.
 */
export class ImageUrls {
  private constructor(
    private readonly key: Buffer,
    private readonly base: string,
  ) {}

  /** @param base the public URL that leads to the server */
  static async open(store: SharedStore, queueName: string, base: string): Promise<ImageUrls> {
    const fresh = randomBytes(32).toString('base64url');
    const key = await store.setFieldOnce(imagesRecord(queueName), 'key', fresh);
    return new ImageUrls(Buffer.from(key, 'base64url'), base.replace(/\/+$/, ''));
  }

  /** @param type of the image; some APIs take only URLs that end like an image */
  urlOf(text: string, type: 'jpeg' | 'png'): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.key, nonce);
    const sealed = Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]);
    return `${this.base}/${sealed.toString('base64url')}.${type === 'jpeg' ? 'jpg' : type}`;
  }

  /** What a URL, or its path, holds; undefined when it was not made with this key. */
  open(url: string): string | undefined {
    const [, token = ''] = /\/([\w-]+)\.(?:jpg|png)(?:\?.*)?$/.exec(url) ?? [];
    const sealed = Buffer.from(token, 'base64url');
    if (sealed.length <= NONCE_BYTES + TAG_BYTES || sealed.toString('base64url') !== token) return undefined;
    const decipher = createDecipheriv(CIPHER, this.key, sealed.subarray(0, NONCE_BYTES));
    decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
    const text = decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES));
    try {
      return Buffer.concat([text, decipher.final()]).toString();
    } catch {
      // The tag is another one: the URL is forged.
      return undefined;
    }
  }
}

/**
 * Serves images of this machine at the URLs that `ImageUrls` gives them, each prepared as it would be sent itself. All else
 * gets 404, as does an image that may not be read, or not any more.
 * @throws {UsageError} when the address cannot be listened on
 */
export async function startImageServer(
  urls: ImageUrls,
  address: ListenAddress,
  images: ImageOptions,
  logger: Logger,
): Promise<HttpServer> {
  const app = createPublicServer({ bodyLimit: 1024 });
  const closed = new AbortController();
  app.get('/', async ({ originalUrl }, reply) => {
    const url = urls.open(originalUrl);
    if (url === undefined) return reply.code(404).send();
    // Our own look whether the public URL leads here.
    if (!url.startsWith('file:')) return reply.type('text/plain').send(url);
    try {
      const { type, bytes } = await prepareImage(() => loadLocal(url, images), images, closed.signal);
      return await reply.type(`image/${type}`).header('cache-control', 'no-store').send(bytes);
    } catch (error) {
      if (!(error instanceof BadImageError)) throw error;
      logger.warn({ reason: error.message }, 'an image that the API asks for cannot be served');
      return reply.code(404).send();
    }
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send());
  app.setErrorHandler((_error, _request, reply) => reply.code(404).send());
  app.addHook('onClose', (_app, done) => {
    closed.abort();
    done();
  });
  return await listen(app, address, '--serve-images');
}

/** Why the public URL does not lead to the server, as far as this machine sees; undefined when it does. */
export async function whyUnreached(urls: ImageUrls): Promise<string | undefined> {
  const fetcher = new ImageFetcher({ allowPrivate: true, maxBytes: 1024 });
  const signal = AbortSignal.timeout(REACHED_WITHIN_MS);
  const text = randomUUID();
  try {
    const found = await fetcher.fetch(urls.urlOf(text, 'png'), 1, signal);
    return found.toString() === text ? undefined : 'something else answers there';
  } catch (error) {
    return signal.aborted ? `no answer within ${REACHED_WITHIN_MS / 1000} s` : messageOf(error);
  } finally {
    await fetcher.close();
  }
}
