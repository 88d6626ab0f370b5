import pLimit from 'p-limit';
import { describeJobId } from '../shared/jobs.js';
import { RUNS } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import * as registry from '../shared/queue/registry.js';
import { BadImageError, type PreparedImage, loadLocal, prepareImage } from '../shared/prepare-image.js';
import { imageDataSchema } from './texts.js';

const SIDE = 320;
const DEADLINE_MS = 20_000;
/** Who looks at a page waits for as many pictures as are on it: the run's own come first. */
const turn = pLimit(2);

/**
 * A small picture of a run's image on this machine, for its page; undefined where there is none to be shown. Only what a job
 * of the run names is read, and only within the folders of images.
 * @param roots their real paths
 */
export async function localThumbnail(
  connection: QueueConnection,
  { run, image }: { readonly run: string; readonly image: string },
  roots: readonly string[],
): Promise<PreparedImage | undefined> {
  if (roots.length === 0) return undefined;
  const status = await registry.find(connection.store, RUNS, run);
  if (status === undefined) return undefined;
  const job = await connection.queue<unknown, unknown>(status.queueName).getJob(describeJobId(run, image));
  const url = imageDataSchema.safeParse(job?.data).data?.url ?? '';
  return url.startsWith('file:') ? await smallPicture(url, roots) : undefined;
}

/** A small picture of a `file:` URL within the roots, or a `data:` URI; undefined where it cannot be had. */
export async function smallPicture(
  url: string,
  roots: readonly string[],
): Promise<PreparedImage | undefined> {
  try {
    const load = () => loadLocal(url, { roots });
    return await turn(() => prepareImage(load, { side: SIDE }, AbortSignal.timeout(DEADLINE_MS)));
  } catch (error) {
    if (error instanceof BadImageError) return undefined;
    throw error;
  }
}
