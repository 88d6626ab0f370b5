import type { JobType } from 'bullmq';
import { z } from 'zod';
import type { QueueConnection } from '../shared/queue/connection.js';
import type { RunRequestJob } from './run-outcome.js';
import { RUNS_QUEUE, instantSchema } from './run-request.js';

/**
 * What a request is known by. Whatever else it says may be of another version: its run can still be found and cancelled, and
 * its turn is still seen.
 */
const namesSchema = z.object({
  manifest: z.string(),
  output: z.string().optional(),
  schedule: z.string().optional(),
  begunAt: instantSchema.optional(),
});

export type RequestNames = z.infer<typeof namesSchema>;

/** A job of the runs queue that holds a request, as far as can be told. */
export interface QueuedRequest {
  readonly job: RunRequestJob;
  readonly names: RequestNames;
}

/** What a job of the runs queue is known by; undefined when it is no request at all. */
export function requestNames(data: unknown): RequestNames | undefined {
  return namesSchema.safeParse(data).data;
}

/**
 * The jobs of the runs queue in these states.
 * @returns the requests; and the jobs that are none, which a home refuses when they are due, and which concern nobody else
 */
export async function queuedRequests(
  connection: QueueConnection,
  states: readonly JobType[],
): Promise<{ readonly requests: QueuedRequest[]; readonly others: RunRequestJob[] }> {
  // One that goes meanwhile is missing, whatever BullMQ's types say.
  const jobs: (RunRequestJob | undefined)[] = await connection
    .queue<unknown, never>(RUNS_QUEUE)
    .getJobs([...states]);
  const requests: QueuedRequest[] = [];
  const others: RunRequestJob[] = [];
  for (const job of jobs) {
    if (job === undefined) continue;
    const names = requestNames(job.data);
    if (names === undefined) others.push(job);
    else requests.push({ job, names });
  }
  return { requests, others };
}
