import { z } from 'zod';
import { describeJobId } from '../../shared/jobs.js';
import type { DescribeJobData, ResultJobData } from '../../shared/jobs.js';
import type { JobQueue, QueueConnection } from '../../shared/queue/connection.js';
import type { RunStatus } from '../../shared/published.js';

/** An image of a run that has its prompts. */
export interface DescribedImage {
  readonly jobId: string;
  readonly url: string;
  readonly row: number;
  readonly prompts: readonly string[];
  readonly messageId: string;
  /** Epoch milliseconds. */
  readonly at: number | undefined;
}

export interface FailedImage {
  readonly jobId: string;
  readonly url: string;
  readonly row: number;
  readonly reason: string;
  readonly at: number | undefined;
}

const AT_ONCE = 50;
/** Other runs of the account have their images in the same queue: so many are looked through at most. */
const LOOKED_THROUGH = 300;

/** What is read of jobs that anybody may have added to the queue. */
const dataSchema = z.object({ run: z.string(), url: z.string(), row: z.number() });
const describedSchema = z.object({
  outcome: z.object({
    status: z.literal('described'),
    prompts: z.array(z.string()),
    messageId: z.string(),
  }),
});

/** The images of a run that were described last, the newest first. */
export async function newestDescribed(
  connection: QueueConnection,
  { run, queueName }: Pick<RunStatus, 'run' | 'queueName'>,
  count: number,
): Promise<DescribedImage[]> {
  return newest(connection, 'completed', run, queueName, count, ({ id, data, returnvalue, finishedOn }) => {
    const about = dataSchema.safeParse(data).data;
    const described = describedSchema.safeParse(returnvalue).data;
    if (about === undefined || described === undefined) return undefined;
    const { prompts, messageId } = described.outcome;
    return { jobId: id ?? '', url: about.url, row: about.row, prompts, messageId, at: finishedOn };
  });
}

/** The images of a run that failed last, the newest first. */
export async function newestFailed(
  connection: QueueConnection,
  { run, queueName }: Pick<RunStatus, 'run' | 'queueName'>,
  count: number,
): Promise<FailedImage[]> {
  return newest(connection, 'failed', run, queueName, count, ({ id, data, failedReason, finishedOn }) => {
    const about = dataSchema.safeParse(data).data;
    if (about === undefined) return undefined;
    return { jobId: id ?? '', url: about.url, row: about.row, reason: failedReason, at: finishedOn };
  });
}

type Job = Awaited<ReturnType<JobQueue<DescribeJobData, ResultJobData>['getJobs']>>[number];

async function newest<T>(
  connection: QueueConnection,
  state: 'completed' | 'failed',
  run: string,
  queueName: string,
  count: number,
  read: (job: Job) => T | undefined,
): Promise<T[]> {
  const queue = connection.queue<DescribeJobData, ResultJobData>(queueName);
  const found: T[] = [];
  const isMine = (jobId: string) => jobId.startsWith(describeJobId(run, ''));
  for (let start = 0; start < LOOKED_THROUGH && found.length < count; start += AT_ONCE) {
    const ids = await queue.getRanges([state], start, start + AT_ONCE - 1);
    const mine = ids.filter(isMine).slice(0, count - found.length);
    const jobs = await Promise.all(mine.map((id) => queue.getJob(id)));
    found.push(...jobs.flatMap((job) => (job === undefined ? [] : (read(job) ?? []))));
    if (ids.length < AT_ONCE) break;
  }
  return found;
}
