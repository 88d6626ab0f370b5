import type { ApiOptions } from '../run/api-options.js';
import { describeManifest } from '../run/describe-manifest.js';
import type { RunStop } from '../run/receipt.js';
import type { RunEvent, RunOptions } from '../run/run-options.js';
import type { RunTiming } from '../run/run-options.js';
import { BusyError, UsageError, messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import { defaultOutputPath } from '../writer/output-paths.js';
import { isDated } from './schedule-dates.js';
import type { RootFolder } from './root-folder.js';
import type { RunOutcome, RunRequest } from './run-request.js';

/** What a server executes requests with. */
export interface ExecutorDeps {
  readonly root: RootFolder;
  /** The queue's URL: a run has a connection of its own. */
  readonly queue: string;
  /** What a request does not say about the API. */
  readonly api: Pick<ApiOptions, 'api' | 'account' | 'dialect'>;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
  readonly timing?: Partial<RunTiming> | undefined;
}

export interface ExecutionOptions {
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
export async function executeRequest(
  request: RunRequest,
  deps: ExecutorDeps,
  options: ExecutionOptions,
): Promise<Execution> {
  // A run listens to its signal until it is told to end; the server's would keep all runs that it has ever executed.
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
      differences.length > 0 ? `the account does not balance: ${differences.join('; ')}` : '';
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
export function refusal(error: unknown, logger: Logger): RunOutcome {
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
