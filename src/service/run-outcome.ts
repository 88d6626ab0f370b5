import type { Job } from 'bullmq';
import { z } from 'zod';
import type { Receipt } from '../run/receipt.js';

/**
 * How a request ended; the return value of its job.
 * ended: it ran, see `exitCode`. skipped: a schedule's turn that found the run before it still going on.
 * refused: it did not begin, since something in it or in its files cannot work; its job has failed.
 */
export interface RunOutcome {
  readonly outcome: 'ended' | 'skipped' | 'refused';
  readonly exitCode: number;
  /** One line: why it was stopped, skipped or refused. */
  readonly reason?: string | undefined;
  readonly receipt?: Receipt | undefined;
}

/** A job of the runs queue. Anybody may have put anything there: its data is read before it is believed. */
export type RunRequestJob = Job<unknown, RunOutcome>;

/**
 * The progress of a request's job: `opened` from the moment in which the home has opened manifest and output,
 * `refused` when it could not; rewritten each second in which something has changed.
 */
export const runJobProgressSchema = z.discriminatedUnion('state', [
  z.object({
    state: z.literal('opened'),
    /** The run's id, and its files as the home sees them. */
    run: z.string(),
    manifest: z.string(),
    output: z.string(),
    rows: z.number(),
    totalRows: z.number().optional(),
    described: z.number(),
    resumed: z.number(),
    copied: z.number(),
    failed: z.number(),
    inFlight: z.number(),
    perSecond: z.number(),
    etaMs: z.number().optional(),
  }),
  z.object({ state: z.literal('refused'), exitCode: z.number(), reason: z.string() }),
]);

export type RunJobProgress = z.infer<typeof runJobProgressSchema>;

/** What a request's job tells of its run; undefined before its files are open. */
export function runJobProgress(job: Pick<RunRequestJob, 'progress'>): RunJobProgress | undefined {
  return runJobProgressSchema.safeParse(job.progress).data;
}

/** How a request's job ended; undefined while it has not. */
export function runOutcomeOf(
  job: Pick<RunRequestJob, 'progress' | 'failedReason' | 'returnvalue' | 'finishedOn'>,
): RunOutcome | undefined {
  if (job.finishedOn === undefined) return undefined;
  if (!job.failedReason) return job.returnvalue;
  const progress = runJobProgress(job);
  const exitCode = progress?.state === 'refused' ? progress.exitCode : 1;
  return { outcome: 'refused', exitCode, reason: job.failedReason };
}

/** An outcome on one line: `12 described, 3 failed`, `skipped: ...`. */
export function outcomeText({ outcome, reason, receipt }: RunOutcome): string {
  const why = reason === undefined || reason === '' ? '' : `: ${reason}`;
  if (outcome !== 'ended' || receipt === undefined) return `${outcome}${why}`;
  const { described, resumed, copied, failed, remaining } = receipt;
  const counts = Object.entries({ described, resumed, copied, failed, remaining })
    .filter(([name, count]) => count > 0 || name === 'described')
    .map(([name, count]) => `${count} ${name}`);
  return `${counts.join(', ')}${why}`;
}
