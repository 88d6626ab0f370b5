import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import pLimit from 'p-limit';
import type Sharp from 'sharp';
import { FatalError, fileTrouble, messageOf } from './errors.js';
import { openAllowed } from './local-file.js';

/** How images are sent to the API. */
export interface ImageOptions {
  /** `url`: the API loads them; `data`: they are sent along; `auto`: as the API takes them. */
  readonly send?: 'url' | 'data' | 'auto' | undefined;
  /** Where local images are served for APIs that take URLs alone; see `startImageServer`. */
  readonly publicUrl?: string | undefined;
  /** Real paths of the folders whose files may be read; none. */
  readonly roots?: readonly string[] | undefined;
  /** Whether symbolic links may lead out of them. */
  readonly followLinks?: boolean | undefined;
  /** Whether images are fetched from this machine and private networks too. */
  readonly allowPrivate?: boolean | undefined;
  readonly maxBytes?: number | undefined;
  /** Of the longer side, in pixels: larger ones are made smaller. */
  readonly side?: number | undefined;
}

/** The command line shows them, and loads no worker for that. */
export const IMAGE_DEFAULTS = { send: 'auto', maxBytes: 20 * 1024 ** 2, side: 1536 } as const;

/** More pixels than a file of a camera has are a decompression bomb. */
const MOST_PIXELS = 2 ** 28;
const PREPARE_SECONDS = 60;
const QUALITY = 90;
/** Each holds a whole image unpacked. */
const preparing = pLimit(4);

/** An image cannot be read, so nothing is paid for it. Its message says why, for people. */
export class BadImageError extends FatalError {
  override name = 'BadImageError';

  /** @param retryAfterMs where it may be otherwise in a moment, after how long at the earliest */
  constructor(
    reason: string,
    readonly retryAfterMs?: number,
  ) {
    super(reason);
  }
}

export interface PreparedImage {
  readonly type: 'jpeg' | 'png';
  readonly bytes: Buffer;
}

/**
 * An image as it is sent: upright, no larger than is useful, and in a format that every model reads.
 * @param load gets its bytes, once it is its turn
 * @throws {BadImageError} when it cannot be read
 * @throws the signal's reason when it aborts
 */
export function prepareImage(
  load: () => Buffer | Promise<Buffer>,
  { maxBytes = IMAGE_DEFAULTS.maxBytes, side = IMAGE_DEFAULTS.side }: ImageOptions,
  signal: AbortSignal,
): Promise<PreparedImage> {
  return preparing(async () => {
    signal.throwIfAborted();
    const bytes = await load();
    if (bytes.length > maxBytes)
      throw new BadImageError(`it has more than ${maxBytes} bytes, which are the most (--max-image-bytes)`);
    if (bytes.length === 0) throw new BadImageError('it has 0 bytes');
    // Where this machine has no sharp that it can load, that is no fault of the image.
    const { default: sharp } = await import('sharp');
    return await encode(sharp, bytes, side).catch((error: unknown) => {
      throw new BadImageError(`it is no image that can be read: ${messageOf(error)}`);
    });
  });
}

/** The bytes of a `data:` URI, or of a `file:` URL within the folders that may be read. @throws {BadImageError} */
export async function loadLocal(
  url: string,
  { roots = [], followLinks, maxBytes = IMAGE_DEFAULTS.maxBytes }: ImageOptions,
): Promise<Buffer> {
  if (url.startsWith('data:')) return Buffer.from(url.slice(url.indexOf(',') + 1), 'base64');
  if (roots.length === 0)
    throw new BadImageError(
      'this worker reads no files: start it with --image-root <folder>, which they are in',
    );
  try {
    const { handle } = await openAllowed(fileURLToPath(url), { roots, followLinks });
    // One byte more says that it is larger. The stream closes the file.
    return await buffer(handle.createReadStream({ end: maxBytes }));
  } catch (error) {
    throw new BadImageError(fileTrouble(error));
  }
}

async function encode(sharp: typeof Sharp, bytes: Buffer, side: number): Promise<PreparedImage> {
  const image = sharp(bytes, { limitInputPixels: MOST_PIXELS, failOn: 'error' });
  const { hasAlpha } = await image.metadata();
  const sized = image
    .timeout({ seconds: PREPARE_SECONDS })
    .autoOrient()
    .resize({ width: side, height: side, fit: 'inside', withoutEnlargement: true });
  if (!hasAlpha) return { type: 'jpeg', bytes: await sized.jpeg({ quality: QUALITY }).toBuffer() };
  const png = await sized.png().toBuffer();
  // Screenshots have alpha, and nothing to be seen through.
  const { isOpaque } = await sharp(png).stats();
  if (!isOpaque) return { type: 'png', bytes: png };
  return { type: 'jpeg', bytes: await sharp(png).jpeg({ quality: QUALITY }).toBuffer() };
}
