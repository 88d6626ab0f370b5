import pLimit from 'p-limit';
import { FatalError } from '../shared/errors.js';
import { loadLocal, prepareImage } from '../shared/prepare-image.js';
import { ImageFetcher } from '../worker/fetch-image.js';

const SIDE = 160;
const AT_ONCE = 16;
/** How often a host that fails for the moment is asked. */
const ATTEMPTS = 2;

/**
 * Makes small pictures of images, as `data:` URIs.
 * @param options.roots real paths of the folders whose files may be read
 * @param onProgress gets how many are done
 * @returns those that could be had, by their URLs
 * @throws the signal's reason when it aborts
 */
export async function makeThumbnails(
  urls: ReadonlySet<string>,
  options: { readonly roots: readonly string[]; readonly allowPrivate?: boolean | undefined },
  signal: AbortSignal,
  onProgress: (done: number) => void,
): Promise<ReadonlyMap<string, string>> {
  const fetcher = new ImageFetcher(options);
  const turn = pLimit(AT_ONCE);
  const made = new Map<string, string>();
  let done = 0;
  const make = async (url: string) => {
    signal.throwIfAborted();
    try {
      const isWeb = /^https?:/.test(url);
      const bytes = isWeb ? await fetcher.fetch(url, ATTEMPTS, signal) : undefined;
      const load = () => bytes ?? loadLocal(url, options);
      const { type, bytes: small } = await prepareImage(load, { side: SIDE }, signal);
      made.set(url, `data:image/${type};base64,${small.toString('base64')}`);
    } catch (error) {
      // It has a placeholder, and is counted.
      if (signal.aborted || !(error instanceof FatalError)) throw error;
    }
    onProgress(++done);
  };
  try {
    await Promise.all(Array.from(urls, (url) => turn(() => make(url))));
  } finally {
    await fetcher.close();
  }
  return made;
}
