import type { QueueConnection } from '../shared/queue/connection.js';
import { type RunRequestJob, runJobProgress } from './run-outcome.js';
import { RUNS_QUEUE, runRequestSchema } from './run-request.js';

/** A run that a home has begun and handed back. */
export interface HandedBackRun {
  /** Only what is in flight is to be brought home. */
  readonly cancelled?: boolean | undefined;
}

/** They are at the head of the queue. */
const LOOK_AT = 200;

/** The runs that wait in the runs queue to be taken up again, by their ids. */
export async function handedBackRuns(connection: QueueConnection): Promise<Map<string, HandedBackRun>> {
  // One that goes meanwhile is missing, whatever BullMQ's types say.
  const jobs: (RunRequestJob | undefined)[] = await connection
    .queue<RunRequestJob['data'], never>(RUNS_QUEUE)
    .getJobs(['waiting', 'prioritized', 'delayed'], 0, LOOK_AT - 1, true);
  const runs = new Map<string, HandedBackRun>();
  for (const job of jobs) {
    const progress = job && runJobProgress(job);
    if (job === undefined || progress?.state !== 'opened') continue;
    const stop = runRequestSchema.safeParse(job.data).data?.stoppedBefore;
    runs.set(progress.run, stop?.kind === 'cancelled' ? { cancelled: true } : {});
  }
  return runs;
}
