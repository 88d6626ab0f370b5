import { InterruptedEarlyError } from '../shared/errors.js';
import { UndoStack } from '../shared/undo.js';
import { DamagedRunFileError } from '../writer/run-file.js';
import { checkApi, checkLocalImages } from './api-options.js';
import { checkSidecars, makeFolder } from './captions.js';
import { finishTime } from './finish-by.js';
import { prepareRun } from './prepare.js';
import { previewRun, refusePayingAgain } from './preview.js';
import type { RunOptions, RunResult } from './run-options.js';
import { chooseSample } from './sample.js';
import { checkBudget } from './spending.js';

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
    const opened = await prepareRun(options, undo);
    const prepared = { ...opened, isInSample: await chooseSample(opened, options) };
    const preview = await previewRun(prepared, options);
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
    checkLocalImages(options, preview.localImages);
    refusePayingAgain(prepared, preview, options);
    if (sidecar !== undefined) await makeFolder(sidecar.folder);
    // Queues and workers take half a second to load, which nobody has to wait for who is refused.
    const { coordinate } = await import('./coordinator.js');
    return await coordinate(options, prepared, preview, undo);
  } catch (error) {
    if (error instanceof DamagedRunFileError) {
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

/** A sample is no more than so many images, whatever becomes of the manifest meanwhile; and a time has its date. */
function withBounds(options: RunOptions): RunOptions {
  const { limit = Infinity, sample = Infinity, finishBy } = options;
  const most = Math.min(limit, sample);
  return {
    ...options,
    limit: most === Infinity ? undefined : most,
    finishBy: finishBy && new Date(finishTime(finishBy, Date.now())).toISOString(),
  };
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
