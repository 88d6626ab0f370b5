import { isCountedInPart, untilBroken } from './count-rows.js';
import { type Row, readRows } from '../producer/row-reader.js';
import { InterruptedEarlyError, UsageError } from '../shared/errors.js';
import { shortHash } from '../shared/short-hash.js';
import { UndoStack } from '../shared/undo.js';
import { sayIfLong } from '../shared/waiting.js';
import { DamagedRunFileError } from '../writer/run-file.js';
import { checkApi, checkLocalImages } from './api-options.js';
import { checkBudget } from './budget.js';
import { checkSidecars, makeFolder } from './captions.js';
import { finishTime, parseFinishBy } from './finish-by.js';
import { type PreparedRun, prepareRun } from './prepare.js';
import { previewRun, refusePayingAgain } from './preview.js';
import type { RunOptions, RunResult } from './run-options.js';

/**
 * Describes every row of a manifest: what `bulk-describe run` does. The same call again resumes.
 * @throws {UsageError} before anything is paid or created, when something in the options or files cannot work
 * @throws {BusyError} when another process has the output or the embedded queue
 * @throws {InterruptedEarlyError} when the signal aborts before the first submit
 */
export async function describeManifest(given: RunOptions): Promise<RunResult> {
  const options = withBounds(given);
  const undo = new UndoStack();
  try {
    checkBudget(options);
    const text = 'reading the manifest and the output';
    const sayIt = () => options.onEvent?.({ type: 'phase', text });
    const { prepared, preview } = await sayIfLong(sayIt, readAll(options, undo));
    checkLocalImages(options, preview.localImages);
    refusePayingAgain(prepared, preview, options);
    const { sidecar } = options;
    if (sidecar !== undefined) await checkSidecars(prepared, sidecar.folder, sidecar, options.signal);
    if (options.dryRun === true) {
      options.onEvent?.({ type: 'preview', preview });
      const checking = options.checkUrls === true ? await import('./check-urls.js') : undefined;
      const checked = await checking?.checkUrls(prepared, options, preview);
      options.signal?.throwIfAborted();
      return {
        preview: { ...preview, checked },
        receipt: undefined,
        differences: [],
        stop: undefined,
        failedByCode: new Map(),
        exitCode: 0,
      };
    }
    if (options.work !== false) checkApi(options);
    if (sidecar !== undefined) await makeFolder(sidecar.folder);
    // Queues and workers take half a second to load, which nobody has to wait for who is refused.
    const { coordinate } = await import('./coordinator.js');
    return await coordinate(options, prepared, preview, undo);
  } catch (error) {
    // Nobody pays for a dry run, and it makes no queue.
    if (error instanceof DamagedRunFileError && options.dryRun !== true) {
      const { explainDamage } = await import('./open-run.js');
      throw await explainDamage(error, options);
    }
    // A run that has begun ends with a receipt; here the manifest or the output was still being read.
    if (options.signal?.aborted !== true || !isAbort(error)) throw error;
    throw new InterruptedEarlyError('interrupted before the first submit', { cause: error });
  } finally {
    await undo.release();
  }
}

async function readAll(options: RunOptions, undo: UndoStack) {
  const opened = await prepareRun(options, undo);
  const prepared = { ...opened, isInSample: await chooseSample(opened, options) };
  return { prepared, preview: await previewRun(prepared, options) };
}

/** A sample is no more than so many images, whatever becomes of the manifest meanwhile; and a time has its date. */
function withBounds(options: RunOptions): RunOptions {
  const { limit = Infinity, sample = Infinity, finishBy } = options;
  const most = Math.min(limit, sample);
  return {
    ...options,
    limit: most === Infinity ? undefined : most,
    // One that is over is not wrong: a run that was asked for before it ends at once.
    finishBy:
      finishBy &&
      new Date(finishTime(parseFinishBy(finishBy, 'finishBy', -Infinity), Date.now())).toISOString(),
  };
}

/**
 * Chooses the images of `--sample` among all of the manifest: those whose hashes are the smallest. So they are always
 * the same, whatever has become of them, and those of a smaller sample are among them. Where a column identifies the rows,
 * its values are hashed, since their URLs may change.
 * @returns whether a row is in the sample; undefined without one
 * @throws {UsageError} for a manifest of which only the first records are known
 */
async function chooseSample(
  { manifest, outputOptions }: Pick<PreparedRun, 'manifest' | 'outputOptions'>,
  { sample, signal }: Pick<RunOptions, 'sample' | 'signal'>,
): Promise<((row: Pick<Row, 'key' | 'image'>) => boolean) | undefined> {
  if (sample === undefined) return undefined;
  if (isCountedInPart(manifest)) {
    throw new UsageError(
      `--sample ${sample}: it is chosen among all images, and ${manifest.name} ${manifest.replayable ? 'has over 1 GB, of which only the first records are counted: take a part of it, or --limit' : 'can be read only once: save it as a file first, or use --limit'}`,
    );
  }
  const rankOf = ({ key = '', image = '' }: Pick<Row, 'key' | 'image'>) =>
    outputOptions.index.keyed ? shortHash(key) : image;
  let smallest = new Set<string>();
  let largest: string | undefined;
  const keepSmallest = () => {
    smallest = new Set([...smallest].sort(byCode).slice(0, sample));
    if (smallest.size === sample) largest = [...smallest].at(-1);
  };
  for await (const rows of untilBroken(readRows(manifest, outputOptions, signal))) {
    for (const row of rows) {
      const rank = rankOf(row);
      if (row.image !== undefined && (largest === undefined || rank < largest)) smallest.add(rank);
    }
    if (smallest.size >= 2 * sample) keepSmallest();
  }
  keepSmallest();
  const chosen = smallest;
  return (row) => chosen.has(rankOf(row));
}

function byCode(a: string, b: string): number {
  return a < b ? -1 : 1;
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
