import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto';
import { messageOf } from '../shared/errors.js';
import { type HttpServer, type ListenAddress, createPublicServer, listen } from '../shared/http-server.js';
import type { ImageOptions } from '../shared/image-options.js';
import type { Logger } from '../shared/log.js';
import { BadImageError, loadLocal, prepareImage } from '../shared/prepare-image.js';
import type { SharedStore } from '../shared/queue/store.js';
import { ImageFetcher } from './fetch-image.js';

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const REACHED_WITHIN_MS = 5000;

/** The record of what an account knows about the sending of images. */
export function imagesRecord(queueName: string): string {
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
