import { fileURLToPath } from 'node:url';
import pLimit from 'p-limit';
import { readServiceStatus } from '../service/views.js';
import { describeJobId } from '../shared/jobs.js';
import { openAllowed, readUpTo } from '../shared/local-file.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { imageDataSchema } from './texts.js';

const SIDE = 320;
const MOST_BYTES = 20 * 1024 ** 2;
const MOST_PIXELS = 2 ** 28;
/** Who looks at a page waits for as many pictures as are on it: the run's own come first. */
const prepare = pLimit(2);

/**
 * A small JPEG of a run's image on this machine, for its page; undefined where there is none to be shown. Only what a job of
 * the run names is read, and only within the folders of images.
 * @param roots their real paths
 */
export async function localThumbnail(
  connection: QueueConnection,
  { run, image }: { readonly run: string; readonly image: string },
  roots: readonly string[],
): Promise<Buffer | undefined> {
  if (roots.length === 0) return undefined;
  const { runs } = await readServiceStatus(connection);
  const queueName = runs.find((status) => status.run === run)?.queueName;
  if (queueName === undefined) return undefined;
  const job = await connection.queue<unknown, unknown>(queueName).getJob(describeJobId(run, image));
  const url = imageDataSchema.safeParse(job?.data).data?.url ?? '';
  if (!url.startsWith('file:')) return undefined;
  return await prepare(() => shrink(url, roots).catch(() => undefined));
}

async function shrink(url: string, roots: readonly string[]): Promise<Buffer | undefined> {
  const { handle, bytes } = await openAllowed(fileURLToPath(url), { roots });
  try {
    if (bytes > MOST_BYTES) return undefined;
    const { default: sharp } = await import('sharp');
    return await sharp(await readUpTo(handle, MOST_BYTES), { limitInputPixels: MOST_PIXELS })
      .timeout({ seconds: 10 })
      .autoOrient()
      .resize({ width: SIDE, height: SIDE, fit: 'inside', withoutEnlargement: true })
      .flatten({ background: 'white' })
      .jpeg()
      .toBuffer();
  } finally {
    await handle.close();
  }
}
