import { addAbortListener } from 'node:events';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type ApiOptions, accountOptionsIn } from '../run/api-options.js';
import { describeManifest } from '../run/describe-manifest.js';
import type { RunOptions, RunStop, RunTiming } from '../run/run-options.js';
import { areSeveral } from '../producer/several-manifests.js';
import { BulkDescribeError, BusyError, UsageError, messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { defaultOutputPath, outputOf, rowsPath, runPaths } from '../writer/output-paths.js';
import { readRunFile } from '../writer/run-file.js';
import type { RootFolder } from './root-folder.js';
import {
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  queuedRequests,
  readRequest,
} from './run-request.js';
import { beginRequest, isDated, otherDates } from './schedules.js';

/** What a server executes requests with. */
export interface ExecutorDeps {
  readonly connection: QueueConnection;
  readonly root: RootFolder;
  /** The queue's URL: a run has a connection of its own. */
  readonly queue: string;
  /** What a request does not say about the API. */
  readonly api: ApiOptions;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
  readonly timing?: Partial<RunTiming> | undefined;
}

/** The signal aborts when the server is to end. */
type ExecutionOptions = Required<Pick<RunOptions, 'signal'>> &
  Pick<RunOptions, 'run' | 'earlierOutputs' | 'onEvent'>;

export type Execution =
  | { readonly kind: 'over'; readonly outcome: RunOutcome; readonly stop?: RunStop | undefined }
  /** The server ends: the run goes on elsewhere, or later. */
  | { readonly kind: 'released' }
  /** Another process has the output, or the run. */
  | { readonly kind: 'busy'; readonly reason: string; readonly exitCode: number };

/** Executes what a job of the runs queue asks for. Never rejects. */
export async function executeJob(
  job: RunRequestJob,
  deps: ExecutorDeps,
  { wasOpened, ...options }: ExecutionOptions & { readonly wasOpened: boolean },
): Promise<Execution> {
  const { id = '' } = job;
  try {
    const read = readRequest(job.data, `the request of job ${id}`);
    // A run that has begun has changed the account's limits already; somebody may have changed them since.
    const request = wasOpened ? { ...read, limits: undefined } : read;
    // A run that begins with this request has its id.
    const execution = { ...options, run: /^[a-z][a-z0-9]{11}$/.test(id) ? id : undefined };
    if (request.schedule === undefined) return await executeRequest(request, deps, execution);
    return await executeScheduledRun(job, request, deps, execution);
  } catch (error) {
    return failed(error, deps, options);
  }
}

/** What became of a request that could not be begun, or whose run broke off without a receipt. */
function failed(error: unknown, { logger }: ExecutorDeps, { signal }: { signal: AbortSignal }): Execution {
  if (signal.aborted) return { kind: 'released' };
  const reason = messageOf(error);
  if (error instanceof BusyError) return { kind: 'busy', reason, exitCode: error.exitCode };
  const isForeseen = error instanceof BulkDescribeError;
  if (!isForeseen) logger.error({ err: error }, 'this is a defect, please report it');
  const exitCode = isForeseen ? error.exitCode : 1;
  return { kind: 'over', outcome: { outcome: 'refused', exitCode, reason } };
}

/** Does what a request says, with the function that `bulk-describe run` calls. */
async function executeRequest(
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution> {
  // A run listens to its signal until it ends; the server's would keep all runs that it has ever executed.
  const ending = new AbortController();
  const { signal } = options;
  const relay = addAbortListener(signal, () => ending.abort(signal.reason));
  const running = runOptionsOf(request, deps, { ...options, signal: ending.signal }).then(describeManifest);
  const result = await running.finally(() => relay[Symbol.dispose]());
  const { receipt, stop, differences, exitCode } = result;
  if (signal.aborted && stop?.kind === 'interrupted') return { kind: 'released' };
  const unbalanced =
    differences.length > 0 ? `the receipt does not balance: ${differences.join('; ')}` : undefined;
  const reason = stop?.reason ?? unbalanced;
  return { kind: 'over', outcome: { outcome: 'ended', exitCode, reason, receipt }, stop };
}

async function runOptionsOf(
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<RunOptions> {
  const { root, queue, env, logger, timing } = deps;
  const { output: asked, ...wanted } = request;
  // A request that names its API is not to get a dialect that belongs to another one.
  const isOwnApi = request.api === undefined && request.dialect === undefined;
  const named = isOwnApi ? accountOptionsIn(deps.api) : { api: request.api, dialect: request.dialect };
  const simulator = named.api === 'simulator';
  if (asked !== undefined && isDated(asked)) {
    throw new UsageError(`the output ${asked}: only a schedule's output has a date in its name`);
  }
  const names = [request.manifest, ...(request.moreManifests ?? [])];
  if (asked === undefined && areSeveral(names, root.path)) {
    throw new UsageError('several manifests are run as one: say with -o <path> where the output goes');
  }
  const own = asked === undefined ? [] : Object.values<string>({ ...runPaths(await root.output(asked)) });
  const [manifest, ...moreManifests] = await root.manifests(names, own);
  const output = await root.output(asked ?? defaultOutputPath(manifest, { simulator }));
  const account = request.account ?? deps.api.account;
  const imageRoot = request.imageRoot && (await root.folder(request.imageRoot, '--image-root'));
  const files = { manifest, moreManifests, output, imageRoot, queue };
  const around = { ...options, env, logger, timing };
  const { images } = deps.api;
  return { ...wanted, ...files, ...around, ...named, account, images, work: false };
}

/** The exit code of a scheduled run that was skipped: another run has the schedule. */
const BUSY_EXIT = 5;

/**
 * Begins a scheduled run, or takes one up again: with the date that it began with, which its job keeps. Collects what
 * other dates' files have in flight, without paying for anything, and then executes the request, for which their rows
 * are done.
 * @throws {UsageError} when its time zone, the output's folder, or an earlier file, cannot be used
 */
async function executeScheduledRun(
  job: RunRequestJob,
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution> {
  const begun = beginRequest(request, Date.now());
  // Before the look at others: of two that begin together at least one sees the other.
  if (begun !== request) await job.updateData(begun);
  const reason = await findPredecessor(deps.connection, job, begun);
  if (reason !== undefined) {
    return { kind: 'over', outcome: { outcome: 'skipped', exitCode: BUSY_EXIT, reason } };
  }
  const earlierOutputs = await findEarlier(begun, deps.root);
  for (const output of earlierOutputs) {
    const isUnfinished = (await readRunFile(runPaths(output).runFile))?.open === true;
    const others = earlierOutputs.filter((path) => path !== output);
    const quietly = { signal: options.signal, earlierOutputs: others };
    const trouble = isUnfinished && (await finishEarlier(output, begun, deps, quietly));
    if (trouble) return trouble;
  }
  return await executeRequest(begun, deps, { ...options, earlierOutputs });
}

/** Says which earlier run of the schedule still goes on, or waits to be taken up again. */
export async function findPredecessor(
  connection: QueueConnection,
  job: RunRequestJob,
  { schedule, begunAt = 0 }: RunRequest,
): Promise<string | undefined> {
  for (const { job: other, names } of await queuedRequests(connection)) {
    if (other.id === job.id || names.schedule !== schedule || names.begunAt === undefined) continue;
    const isBefore =
      names.begunAt < begunAt || (names.begunAt === begunAt && (other.id ?? '') < (job.id ?? ''));
    if (!isBefore) continue;
    const since = new Date(names.begunAt).toISOString();
    return `the run that began at ${since} is still going on (${names.output ?? names.manifest})`;
  }
  return undefined;
}

async function findEarlier({ output, outputPattern }: RunRequest, root: RootFolder): Promise<string[]> {
  if (output === undefined || outputPattern === undefined) return [];
  const own = await root.output(output);
  // Of a Parquet output that has not been ended only the working file may be there.
  const files = new Set((await readdir(dirname(own))).map(outputOf));
  const names = otherDates(outputPattern, own, [...files]);
  return await Promise.all(
    names.map(async (name) => {
      // The files that belong to it are read as well.
      const rows = await root.existing(rowsPath(join(dirname(own), name)), 'the earlier output');
      return await root.output(outputOf(rows));
    }),
  );
}

/** @returns what keeps the scheduled run from going on: what is in flight there could be paid for again */
async function finishEarlier(
  output: string,
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution | undefined> {
  // Columns that the manifest has gained since are no reason to leave it unfinished, nor others that are to be kept.
  const layout = { newColumns: true, keep: undefined, drop: undefined };
  const collecting = { ...request, output, collectOnly: true, ...layout };
  const finished = await executeRequest(collecting, deps, options).catch((error: unknown) =>
    failed(error, deps, options),
  );
  if (finished.kind === 'released') return finished;
  const { reason = '', exitCode } = finished.kind === 'busy' ? finished : finished.outcome;
  const about = `${output} has images in flight: ${reason}`;
  if (finished.kind === 'busy') return { ...finished, reason: about };
  const { outcome } = finished.outcome;
  // Rows that failed there are taken up again in tonight's file.
  if (outcome === 'ended' && (exitCode === 0 || exitCode === 2)) return undefined;
  const remedy = outcome === 'refused' ? ` (or remove ${output}.run, and pay for those images again)` : '';
  return { kind: 'over', outcome: { ...finished.outcome, reason: `${about}${remedy}` } };
}
