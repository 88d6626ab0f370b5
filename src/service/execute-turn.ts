import type { QueueConnection } from '../shared/queue/connection.js';
import {
  type Execution,
  type ExecutionOptions,
  type ExecutorTools,
  executeRequest,
  refusal,
} from './execute-request.js';
import type { RunRequestJob } from './run-outcome.js';
import type { RunRequest } from './run-request.js';
import { type Turn, beginScheduledRun } from './scheduled-run.js';

/** The exit code of a turn that was skipped: another run has the schedule. */
const BUSY_EXIT = 5;

/**
 * Does what a schedule's turn says: brings home what other dates' files have in flight, without paying for anything, and
 * then executes the request, for which their rows are done. Never rejects.
 */
export async function executeTurn(
  job: RunRequestJob,
  request: RunRequest,
  tools: ExecutorTools & { readonly connection: QueueConnection },
  options: ExecutionOptions,
): Promise<Execution> {
  let turn: Turn;
  try {
    turn = await beginScheduledRun(tools.connection, job, request, tools.root);
  } catch (error) {
    if (options.signal.aborted) return { kind: 'handed-back' };
    return { kind: 'over', outcome: refusal(error, tools.logger) };
  }
  if (turn.kind === 'skip') {
    const { reason } = turn;
    return { kind: 'over', outcome: { outcome: 'skipped', exitCode: BUSY_EXIT, reason } };
  }
  for (const output of turn.unfinished) {
    const trouble = await finishEarlier(output, turn, tools, options);
    if (trouble !== undefined) return trouble;
  }
  return await executeRequest(turn.request, tools, { ...options, earlierOutputs: turn.earlierOutputs });
}

/** @returns what keeps the turn from going on: what is in flight there could be paid for again */
async function finishEarlier(
  output: string,
  turn: Extract<Turn, { kind: 'run' }>,
  tools: ExecutorTools,
  options: ExecutionOptions,
): Promise<Execution | undefined> {
  // Columns that the manifest has gained since are no reason to leave it unfinished.
  const request = { ...turn.request, output, collectOnly: true, newColumns: true };
  const earlierOutputs = turn.earlierOutputs.filter((path) => path !== output);
  const finished = await executeRequest(request, tools, {
    signal: options.signal,
    newRun: undefined,
    earlierOutputs,
    onEvent: () => undefined,
  });
  if (finished.kind === 'handed-back') return finished;
  const { reason = '', exitCode } = finished.kind === 'busy' ? finished : finished.outcome;
  const about = `${output} has images in flight: ${reason}`;
  if (finished.kind === 'busy') return { ...finished, reason: about };
  const { outcome } = finished.outcome;
  // Rows that failed there are taken up again in tonight's file.
  if (outcome === 'ended' && (exitCode === 0 || exitCode === 2)) return undefined;
  const remedy = outcome === 'refused' ? ` (or remove ${output}.run, and pay for those images again)` : '';
  return { kind: 'over', outcome: { ...finished.outcome, reason: `${about}${remedy}` } };
}
