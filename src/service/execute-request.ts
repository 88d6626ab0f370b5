import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ApiOptions } from '../run/api-options.js';
import { describeManifest } from '../run/describe-manifest.js';
import type { RunEvent, RunOptions, RunStop, RunTiming } from '../run/run-options.js';
import { BusyError, UsageError, messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { defaultOutputPath, runPaths } from '../writer/output-paths.js';
import { readRunFile } from '../writer/run-file.js';
import { checkTimeZone, datedOutput, isDated, localDate, otherDates } from './schedule-dates.js';
import type { RootFolder } from './root-folder.js';
import {
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  queuedRequests,
  readRequest,
} from './run-request.js';

/** What a server executes requests with. */
export interface ExecutorDeps {
  readonly connection: QueueConnection;
  readonly root: RootFolder;
  /** The queue's URL: a run has a connection of its own. */
  readonly queue: string;
  /** What a request does not say about the API. */
  readonly api: Pick<ApiOptions, 'api' | 'account' | 'dialect'>;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
  readonly timing?: Partial<RunTiming> | undefined;
}

interface ExecutionOptions {
  /** The id of a run that begins with this request. */
  readonly newRun: string | undefined;
  /** Files whose rows count as done. */
  readonly earlierOutputs?: readonly string[] | undefined;
  /** Aborts when the server is to end. */
  readonly signal: AbortSignal;
  readonly onEvent: (event: RunEvent) => void;
}

/** What became of a request. */
export type Execution =
  | { readonly kind: 'over'; readonly outcome: RunOutcome; readonly stop?: RunStop | undefined }
  /** The server ends: the run goes on elsewhere, or later. */
  | { readonly kind: 'released' }
  /** Another process has the output, or the run. */
  | { readonly kind: 'busy'; readonly reason: string; readonly exitCode: number };

/** Does what a request says, with the function that `bulk-describe run` calls. Never rejects. */
async function executeRequest(
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution> {
  // A run listens to its signal until it ends; the server's would keep all runs that it has ever executed.
  const ending = new AbortController();
  const end = () => ending.abort(options.signal.reason);
  if (options.signal.aborted) end();
  else options.signal.addEventListener('abort', end, { once: true });
  try {
    const own = { ...options, signal: ending.signal };
    const result = await describeManifest(await runOptionsOf(request, deps, own));
    const { receipt, stop, differences, exitCode } = result;
    if (options.signal.aborted && stop?.kind === 'interrupted') return { kind: 'released' };
    const unbalanced =
      differences.length > 0 ? `the receipt does not balance: ${differences.join('; ')}` : '';
    const reason = stop?.reason ?? (unbalanced || undefined);
    return { kind: 'over', outcome: { outcome: 'ended', exitCode, reason, receipt }, stop };
  } catch (error) {
    if (options.signal.aborted) return { kind: 'released' };
    const reason = messageOf(error);
    if (error instanceof BusyError) return { kind: 'busy', reason, exitCode: error.exitCode };
    return { kind: 'over', outcome: refusal(error, deps.logger) };
  } finally {
    options.signal.removeEventListener('abort', end);
  }
}

/** The outcome of a request that could not be begun, or whose run broke off without a receipt. */
function refusal(error: unknown, logger: Logger): RunOutcome {
  const isForeseen = error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number';
  if (!isForeseen) logger.error({ err: error }, 'this is a defect, please report it');
  return { outcome: 'refused', exitCode: isForeseen ? Number(error.exitCode) : 1, reason: messageOf(error) };
}

async function runOptionsOf(
  request: RunRequest,
  deps: ExecutorDeps,
  { newRun, earlierOutputs, signal, onEvent }: ExecutionOptions,
): Promise<RunOptions> {
  const { root, queue, env, logger, timing } = deps;
  const { output: asked, ...wanted } = request;
  // A request that names its API is not to get a dialect that belongs to another one.
  const isOwnApi = request.api === undefined && request.dialect === undefined;
  const { api, dialect } = isOwnApi ? deps.api : request;
  const manifest = await root.existing(request.manifest, 'the manifest');
  const simulator = api === 'simulator';
  if (asked !== undefined && isDated(asked)) {
    throw new UsageError(`the output ${asked}: only a schedule's output has a date in its name`);
  }
  const output = await root.output(asked ?? defaultOutputPath(manifest, { simulator }));
  const account = request.account ?? deps.api.account;
  const files = { manifest, output, earlierOutputs, queue };
  const around = { env, logger, timing, signal, onEvent };
  return { ...wanted, ...files, ...around, api, dialect, account, work: false, run: newRun };
}

/** What a scheduled run is to do. */
type Plan =
  | {
      readonly kind: 'run';
      /** With its output's date. */
      readonly request: RunRequest;
      /** Files of other dates, whose rows count as done. */
      readonly earlierOutputs: readonly string[];
      /** Of those, the ones that have images in flight: to be collected first, or they would be paid for again. */
      readonly unfinished: readonly string[];
    }
  | { readonly kind: 'skip'; readonly reason: string };

/**
 * Begins a scheduled run, or takes one up again: with the date that it began with, which its job keeps.
 * @param request the job's data, read
 * @throws {UsageError} when its time zone, the output's folder, or an earlier file, cannot be used
 */
export async function beginScheduledRun(
  connection: QueueConnection,
  job: RunRequestJob,
  request: RunRequest,
  root: RootFolder,
): Promise<Plan> {
  if (request.timeZone !== undefined) checkTimeZone(request.timeZone);
  const begun = beginRequest(request, Date.now());
  // Before the look at others: of two that begin together at least one sees the other.
  if (begun !== request) await job.updateData(begun);
  const predecessor = await findPredecessor(connection, job, begun);
  if (predecessor !== undefined) return { kind: 'skip', reason: predecessor };
  const earlierOutputs = await findEarlier(begun, root);
  return { kind: 'run', request: begun, earlierOutputs, unfinished: await unfinishedOf(earlierOutputs) };
}

/** Fixes the moment in which a scheduled run has begun, and its date with it; one that has begun stays as it is. */
export function beginRequest(request: RunRequest, nowMs: number): RunRequest {
  const { output, timeZone = 'UTC' } = request;
  if (request.begunAt !== undefined) return request;
  if (output === undefined || !isDated(output)) return { ...request, begunAt: nowMs };
  const dated = datedOutput(output, localDate(nowMs, timeZone));
  return { ...request, begunAt: nowMs, output: dated, outputPattern: output };
}

/** Says which earlier run of the schedule still goes on, or waits to be taken up again. */
async function findPredecessor(
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
  const names = otherDates(outputPattern, own, await readdir(dirname(own)));
  return await Promise.all(
    names.map(async (name) => {
      // The files that belong to it are read as well.
      return await root.output(await root.existing(join(dirname(own), name), 'the earlier output'));
    }),
  );
}

async function unfinishedOf(outputs: readonly string[]): Promise<string[]> {
  const unfinished: string[] = [];
  for (const output of outputs) {
    const runFile = await readRunFile(runPaths(output).runFile);
    if (runFile?.open === true) unfinished.push(output);
  }
  return unfinished;
}

/** The exit code of a scheduled run that was skipped: another run has the schedule. */
const BUSY_EXIT = 5;

/** Executes what a job of the runs queue asks for. Never rejects. */
export async function executeJob(
  job: RunRequestJob,
  deps: ExecutorDeps,
  { wasOpened, ...options }: Pick<ExecutionOptions, 'signal' | 'onEvent'> & { readonly wasOpened: boolean },
): Promise<Execution> {
  const { id = '' } = job;
  try {
    const read = readRequest(job.data, `the request of job ${id}`);
    // A run that has begun has changed the account's limits already; somebody may have changed them since.
    const request = wasOpened ? { ...read, limits: undefined } : read;
    const execution = { ...options, newRun: /^[a-z][a-z0-9]{11}$/.test(id) ? id : undefined };
    if (request.schedule === undefined) return await executeRequest(request, deps, execution);
    return await executeScheduledRun(job, request, deps, execution);
  } catch (error) {
    if (options.signal.aborted) return { kind: 'released' };
    return { kind: 'over', outcome: refusal(error, deps.logger) };
  }
}

/**
 * Does what a scheduled run is to do: collects what other dates' files have in flight, without paying for anything, and
 * then executes the request, for which their rows are done.
 */
async function executeScheduledRun(
  job: RunRequestJob,
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution> {
  const plan = await beginScheduledRun(deps.connection, job, request, deps.root);
  if (plan.kind === 'skip') {
    const { reason } = plan;
    return { kind: 'over', outcome: { outcome: 'skipped', exitCode: BUSY_EXIT, reason } };
  }
  for (const output of plan.unfinished) {
    const trouble = await finishEarlier(output, plan, deps, options);
    if (trouble !== undefined) return trouble;
  }
  return await executeRequest(plan.request, deps, { ...options, earlierOutputs: plan.earlierOutputs });
}

/** @returns what keeps the scheduled run from going on: what is in flight there could be paid for again */
async function finishEarlier(
  output: string,
  plan: Extract<Plan, { kind: 'run' }>,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution | undefined> {
  // Columns that the manifest has gained since are no reason to leave it unfinished.
  const request = { ...plan.request, output, collectOnly: true, newColumns: true };
  const earlierOutputs = plan.earlierOutputs.filter((path) => path !== output);
  const finished = await executeRequest(request, deps, {
    signal: options.signal,
    newRun: undefined,
    earlierOutputs,
    onEvent: () => undefined,
  });
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
