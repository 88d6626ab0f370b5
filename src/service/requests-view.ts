import type { QueueConnection } from '../shared/queue/connection.js';
import { requestNames } from './queued-requests.js';
import { RUNS_QUEUE } from './run-request.js';

/** A run that has been asked for and that no home has begun. */
export interface WaitingRequest {
  readonly job: string;
  /** As the request has them: relative to the home's root. */
  readonly manifest: string;
  readonly output?: string | undefined;
  readonly schedule?: string | undefined;
  /** Since when it waits, epoch milliseconds. */
  readonly since: number;
}

/** What the runs queue holds. */
export interface RequestsView {
  readonly executing: number;
  readonly waiting: number;
  /** The first of those that wait. */
  readonly next: readonly WaitingRequest[];
}

const SHOWN = 20;

/** Schedules' turns that are not due yet do not count. */
export async function viewRequests(connection: QueueConnection): Promise<RequestsView> {
  const queue = connection.queue<unknown, unknown>(RUNS_QUEUE);
  const [counts, jobs] = await Promise.all([
    queue.getJobCounts('active', 'waiting', 'prioritized'),
    queue.getJobs(['waiting', 'prioritized'], 0, SHOWN - 1, true),
  ]);
  // One that goes meanwhile is missing, whatever BullMQ's types say.
  const found: readonly ((typeof jobs)[number] | undefined)[] = jobs;
  const { active = 0, ...waiting } = counts;
  return {
    executing: active,
    waiting: Object.values(waiting).reduce((sum, count) => sum + count, 0),
    next: found.slice(0, SHOWN).flatMap((job) => {
      const names = requestNames(job?.data);
      if (job === undefined || names === undefined) return [];
      const { manifest, output, schedule } = names;
      return [{ job: job.id ?? '', manifest, output, schedule, since: job.timestamp }];
    }),
  };
}
