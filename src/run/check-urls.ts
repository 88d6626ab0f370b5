import { fileURLToPath } from 'node:url';
import pLimit, { type LimitFunction } from 'p-limit';
import type { Row } from '../producer/row-reader.js';
import { fileTrouble } from '../shared/errors.js';
import { openAllowed } from '../shared/local-file.js';
import { BadImageError, IMAGE_DEFAULTS } from '../shared/prepare-image.js';
import { repeat } from '../shared/waiting.js';
import { type ImageHead, ImageFetcher, PrivateImageError } from '../worker/fetch-image.js';
import { type PreparedRun, rootsOf } from './prepare.js';
import { countRows } from './count-rows.js';
import type { Preview, RunOptions } from './run-options.js';

/** The hosts have their own work to do. */
const AT_A_TIME_PER_HOST = 2;
const TIMEOUT_MS = 10_000;
const ATTEMPTS = 2;
/** A host that has not answered for so many images in a row is asked for no more of them. */
const MOST_UNANSWERED = 5;
const MOST_WAITING = 500;
const MOST_LISTED = 1000;
const SAY_EVERY_MS = 5000;

/** What can be wrong with an image's URL. */
type TroubleKind = 'dead' | 'not-an-image' | 'too-large' | 'private' | 'no-answer';

interface UrlTrouble {
  readonly kind: TroubleKind;
  /** The first that has the image, from 1. */
  readonly row: number;
  readonly url: string;
  /** One line for people. */
  readonly reason: string;
}

export interface CheckedUrls {
  readonly images: number;
  /** By kind, those that there are: how many, and the first of them. */
  readonly bad: Partial<Record<TroubleKind, { readonly images: number; readonly first: UrlTrouble }>>;
  /** At most 1,000 of them, in the order of their rows. */
  readonly list: readonly UrlTrouble[];
}

/**
 * Asks for each image that is to be submitted whether it is there: its host, without loading it; or the file system.
 * @throws the signal's reason when it aborts
 */
export async function checkUrls(
  prepared: PreparedRun,
  options: RunOptions,
  { toSubmit }: Pick<Preview, 'toSubmit'>,
): Promise<CheckedUrls> {
  const { signal = new AbortController().signal, onEvent } = options;
  const checker = new UrlChecker(prepared, options, signal);
  const over = new AbortController();
  const say = () => {
    const text = `looking for ${toSubmit} images at their hosts, ${AT_A_TIME_PER_HOST} at a time each: ${checker.images} found out, ${checker.badImages} bad`;
    onEvent?.({ type: 'phase', text });
    return Promise.resolve();
  };
  await say();
  const saying = repeat(SAY_EVERY_MS, over.signal, say, () => undefined);
  const asking = new Set<Promise<void>>();
  let asked = 0;
  try {
    await countRows(prepared, options, async (row) => {
      if (++asked > toSubmit) return;
      const one = checker.check(row).finally(() => asking.delete(one));
      asking.add(one);
      if (asking.size >= MOST_WAITING) await Promise.race(asking);
    });
    await Promise.all(asking);
    signal.throwIfAborted();
    const { images, bad, list } = checker;
    return { images, bad, list: list.sort((a, b) => a.row - b.row) };
  } finally {
    over.abort();
    await saying;
    await checker.fetcher.close();
  }
}

class UrlChecker {
  images = 0;
  badImages = 0;
  readonly bad: { -readonly [Kind in keyof CheckedUrls['bad']]: CheckedUrls['bad'][Kind] } = {};
  readonly list: UrlTrouble[] = [];
  readonly #hosts = new Map<string, { readonly inTurn: LimitFunction; unanswered: number }>();
  readonly fetcher: ImageFetcher;

  constructor(
    private readonly prepared: PreparedRun,
    private readonly options: RunOptions,
    private readonly signal: AbortSignal,
  ) {
    this.fetcher = new ImageFetcher({ ...options.images }, TIMEOUT_MS);
  }

  /** Never rejects. */
  async check({ url = '', number: row }: Row): Promise<void> {
    const found = await this.#find(url).catch((error: unknown) => troubleIn(error));
    if (this.signal.aborted) return;
    this.images++;
    if (found === undefined) return;
    const [kind, reason] = found;
    this.badImages++;
    const trouble = { kind, row, url, reason };
    if (this.list.length < MOST_LISTED) this.list.push(trouble);
    const { images = 0, first = trouble } = this.bad[kind] ?? {};
    this.bad[kind] = { images: images + 1, first: first.row < row ? first : trouble };
  }

  async #find(url: string): Promise<readonly [TroubleKind, string] | undefined> {
    const { maxBytes = IMAGE_DEFAULTS.maxBytes } = this.options.images ?? {};
    const { type, bytes = 0 } = /^https?:/.test(url) ? await this.#ask(url) : await this.#open(url);
    if (type !== undefined && !/^(?:image\/|(?:application|binary)\/octet-stream)/i.test(type))
      return ['not-an-image', `it is ${type}`];
    if (bytes > maxBytes) return ['too-large', `it has ${bytes} bytes`];
    return undefined;
  }

  #ask(url: string): Promise<ImageHead> {
    const { host } = new URL(url);
    const known = this.#hosts.get(host) ?? { inTurn: pLimit(AT_A_TIME_PER_HOST), unanswered: 0 };
    this.#hosts.set(host, known);
    return known.inTurn(async () => {
      if (known.unanswered >= MOST_UNANSWERED)
        throw new BadImageError(`${host} has not answered for others, and was asked no more`, 0);
      try {
        const head = await this.fetcher.look(url, ATTEMPTS, this.signal);
        known.unanswered = 0;
        return head;
      } catch (error) {
        const isAnswered = error instanceof BadImageError && error.retryAfterMs === undefined;
        known.unanswered = isAnswered ? 0 : known.unanswered + 1;
        throw error;
      }
    });
  }

  async #open(url: string): Promise<ImageHead> {
    const type = undefined;
    if (!url.startsWith('file:')) return { type, bytes: Buffer.byteLength(url, 'base64') };
    const roots = rootsOf(this.prepared);
    const { followLinks } = this.options.images ?? {};
    const { handle, bytes } = await openAllowed(fileURLToPath(url), { roots, followLinks });
    await handle.close();
    return { type, bytes };
  }
}

function troubleIn(error: unknown): readonly [TroubleKind, string] {
  if (error instanceof PrivateImageError) return ['private', error.message];
  if (!(error instanceof BadImageError)) return ['dead', fileTrouble(error)];
  return [error.retryAfterMs === undefined ? 'dead' : 'no-answer', error.message];
}
