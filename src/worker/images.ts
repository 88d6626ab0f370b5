import { fileURLToPath } from 'node:url';
import pLimit from 'p-limit';
import { backoffMs } from '../describe-api/attempt-policy.js';
import { RejectedError, StatusError } from '../describe-api/errors.js';
import type { Dialect } from '../describe-api/dialects/dialect.js';
import { isOfUrl } from '../describe-api/refusals.js';
import { fileTrouble, isSystemError, messageOf } from '../shared/errors.js';
import { ForbiddenFileError, openAllowed, readUpTo } from '../shared/local-file.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { sleep } from '../shared/waiting.js';
import { IMAGE_DEFAULTS, type ImageOptions } from './image-options.js';
import { BadImageError, ImageFetcher, UnreachedImageError } from './fetch-image.js';

/** More pixels than a file of a camera has are a decompression bomb. */
const MOST_PIXELS = 2 ** 28;
const PREPARE_SECONDS = 60;
const QUALITY = 90;
/** Each holds a whole image unpacked. */
const PREPARED_AT_A_TIME = 4;
/** A host that asks for more is not waited for by an image that holds a place. */
const LONGEST_WAIT_MS = 60_000;

/** APIs with chat completions whose servers load URLs, and those that are known not to. Others are tried. */
const LOADS_URLS: ReadonlySet<string> = new Set([
  'api.openai.com',
  'openrouter.ai',
  'api.mistral.ai',
  'api.groq.com',
  'simulator',
]);
const LOADS_NONE: ReadonlySet<string> = new Set(['generativelanguage.googleapis.com']);

function dataUri(type: 'jpeg' | 'png', bytes: Buffer): string {
  return `data:image/${type};base64,${bytes.toString('base64')}`;
}

function isWebUrl(url: string): boolean {
  return /^https?:/.test(url);
}

/** Whether a refusal may be due to the URL: by its words, or since it says nothing else. */
function mayBeOfUrl(error: unknown): error is RejectedError | StatusError {
  if (!(error instanceof RejectedError || error instanceof StatusError)) return false;
  const { about, reason } = error;
  return about === 'request' || (isOfUrl(reason) && ['image', 'moment', 'set-up'].includes(about));
}

/** Images of one account, as its API takes them: as URLs, or as their bytes in `data:` URIs. */
export class Images {
  readonly #options: ImageOptions & Required<Pick<ImageOptions, 'maxBytes' | 'side'>>;
  readonly #preparing = pLimit(PREPARED_AT_A_TIME);
  #fetcher: ImageFetcher | undefined;
  #hasWarned = false;

  private constructor(
    options: ImageOptions,
    /** `unknown`: by URL until that is refused. */
    private sends: 'url' | 'data' | 'unknown',
    /** Why nothing but a URL can be sent. */
    private readonly urlsOnly: string | undefined,
    private readonly remember: (sends: 'url' | 'data') => Promise<void>,
    private readonly onNotice: (text: string) => void,
  ) {
    const { maxBytes = IMAGE_DEFAULTS.maxBytes, side = IMAGE_DEFAULTS.side } = options;
    this.#options = { ...options, maxBytes, side };
  }

  /**
   * @param about.host of the API
   * @param about.onNotice gets what a person should know, such as that images are sent otherwise from now on
   */
  static async open(
    options: ImageOptions,
    about: {
      readonly dialect: Pick<Dialect, 'name' | 'takesModel' | 'takesData'>;
      readonly host: string;
      readonly connection: QueueConnection;
      readonly queueName: string;
      readonly onNotice: (text: string) => void;
    },
  ): Promise<Images> {
    const { dialect, host, connection, queueName, onNotice } = about;
    const { store } = connection;
    const { send = IMAGE_DEFAULTS.send } = options;
    const urlsOnly =
      send === 'url' ? '--send url' : dialect.takesData === true ? undefined : `the dialect ${dialect.name}`;
    const record = `${queueName}:images`;
    const remember = (sends: string) => retryUntilUp(connection, () => store.setFields(record, { sends }));
    const open = (sends: 'url' | 'data' | 'unknown') =>
      new Images(options, sends, urlsOnly, remember, onNotice);
    if (send !== 'auto') return open(send);
    // The others take URLs.
    if (dialect.takesData !== true || LOADS_URLS.has(host)) return open('url');
    if (LOADS_NONE.has(host)) return open('data');
    const { sends } = await store.getFields(record);
    return open(sends === 'url' || sends === 'data' ? sends : 'unknown');
  }

  /** Whether the URL itself is submitted for an image, which costs no time. */
  sendsUrl(url: string): boolean {
    return this.sends !== 'data' && isWebUrl(url);
  }

  /**
   * What is submitted for an image: its URL, or its bytes.
   * @param attempts how often a host that fails is asked
   * @throws {BadImageError} when it cannot be read
   * @throws the signal's reason when it aborts
   */
  async read(url: string, attempts: number, signal: AbortSignal): Promise<string> {
    if (this.sendsUrl(url)) return url;
    if (this.urlsOnly !== undefined)
      throw new BadImageError(`${this.urlsOnly} sends URLs alone, and it has none`);
    return await this.#dataOf(url, attempts, signal);
  }

  async #dataOf(url: string, attempts: number, signal: AbortSignal): Promise<string> {
    // A host may take its time; what is on this machine is not read before its turn.
    const fetched = isWebUrl(url) ? await this.#bytesOf(url, attempts, signal) : undefined;
    return await this.#preparing(async () => {
      signal.throwIfAborted();
      const bytes = fetched ?? (await this.#bytesOf(url, attempts, signal));
      if (bytes.length > this.#options.maxBytes) throw this.#tooLarge();
      if (bytes.length === 0) throw new BadImageError('it has 0 bytes');
      return await this.#prepare(bytes);
    });
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
    try {
      // Those that were under way together are refused together.
      if (!this.#isSwitched()) await this.#dataOf(url, 1, signal);
    } catch (failure) {
      const why = `if it takes no URLs: the image cannot be sent either: ${messageOf(failure)}`;
      if (!this.#hasWarned && !signal.aborted) this.onNotice(`the API refuses an image (${reason}); ${why}`);
      this.#hasWarned = true;
      return false;
    }
    if (this.#isSwitched()) return true;
    this.sends = 'data';
    this.onNotice(`the API takes no image URLs (${reason}): the images themselves are sent from now on`);
    await this.remember('data');
    return true;
  }

  #isSwitched(): boolean {
    return this.sends === 'data';
  }

  /** An image was described: as long as nothing is known, by its URL if it has one. */
  async described(url: string): Promise<void> {
    if (this.sends !== 'unknown' || !isWebUrl(url)) return;
    this.sends = 'url';
    await this.remember('url');
  }

  async close(): Promise<void> {
    await this.#fetcher?.close();
  }

  async #bytesOf(url: string, attempts: number, signal: AbortSignal): Promise<Buffer> {
    if (url.startsWith('data:')) return Buffer.from(url.slice(url.indexOf(',') + 1), 'base64');
    if (url.startsWith('file:')) return await this.#readFile(fileURLToPath(url));
    const { allowPrivate = false, maxBytes } = this.#options;
    const fetcher = (this.#fetcher ??= new ImageFetcher({ allowPrivate, maxBytes }));
    for (let attempt = 1; ; attempt++) {
      try {
        return await fetcher.fetch(url, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof UnreachedImageError) || attempt >= attempts) throw error;
        const waitMs = Math.max(error.retryAfterMs ?? 0, backoffMs(attempt, Math.random()));
        await sleep(Math.min(LONGEST_WAIT_MS, waitMs), signal);
        signal.throwIfAborted();
      }
    }
  }

  async #readFile(path: string): Promise<Buffer> {
    const { roots = [], followLinks, maxBytes } = this.#options;
    if (roots.length === 0)
      throw new BadImageError(
        'this worker reads no files: start it with --image-root <folder>, which they are in',
      );
    try {
      const { handle, bytes } = await openAllowed(path, { roots, followLinks });
      try {
        if (bytes > maxBytes) throw this.#tooLarge();
        return await readUpTo(handle, maxBytes);
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (error instanceof ForbiddenFileError) throw new BadImageError(error.message);
      if (isSystemError(error)) throw new BadImageError(fileTrouble(error));
      throw error;
    }
  }

  #tooLarge(): BadImageError {
    const { maxBytes } = this.#options;
    return new BadImageError(`it has more than ${maxBytes} bytes, which are the most (--max-image-bytes)`);
  }

  /** Upright, no larger than is useful, and in a format that every model reads. */
  async #prepare(bytes: Buffer): Promise<string> {
    const { default: sharp } = await import('sharp');
    const { side } = this.#options;
    try {
      const image = sharp(bytes, { limitInputPixels: MOST_PIXELS, failOn: 'error' });
      const { hasAlpha } = await image.metadata();
      const sized = image
        .timeout({ seconds: PREPARE_SECONDS })
        .autoOrient()
        .resize({ width: side, height: side, fit: 'inside', withoutEnlargement: true });
      if (!hasAlpha) return dataUri('jpeg', await sized.jpeg({ quality: QUALITY }).toBuffer());
      const png = await sized.png().toBuffer();
      // Screenshots have alpha, and nothing to be seen through.
      const { isOpaque } = await sharp(png).stats();
      if (!isOpaque) return dataUri('png', png);
      return dataUri('jpeg', await sharp(png).jpeg({ quality: QUALITY }).toBuffer());
    } catch (error) {
      throw new BadImageError(`it is no image that can be read: ${messageOf(error)}`);
    }
  }
}
