import { resultsQueueName } from '../shared/account.js';
import { GroupCommit } from '../shared/group-commit.js';
import {
  type DescribeJobData,
  type ErrorCode,
  type PublishedResults,
  type Outcome,
  type Prompts,
  RESULT_JOB,
  type ResultJobData,
  resultsTogether,
} from '../shared/jobs.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import type { Processing, ProcessingOutcome } from './processing.js';

export async function publishDescribed(
  processing: Processing,
  data: DescribeJobData,
  prompts: Prompts,
): Promise<ProcessingOutcome> {
  const { job, deps } = processing;
  // Not at the submit: an API may take a URL that it cannot load, and say so of the message.
  await deps.images.described(data.url);
  job.report(100);
  job.log(`completed after ${data.polls} poll(s)`);
  const messageId = data.messageId ?? '';
  const describedAt = new Date().toISOString();
  const result = await publish(processing, data, { status: 'described', prompts, messageId, describedAt });
  return { kind: 'complete', result };
}

export async function publishFailed(
  processing: Processing,
  data: DescribeJobData,
  {
    code,
    reason,
    answer,
  }: { readonly code: ErrorCode; readonly reason: string; readonly answer?: string | undefined },
): Promise<ProcessingOutcome> {
  processing.job.log(`failed (${code}): ${reason}`);
  const { attempts } = data;
  const messageId = data.messageId ?? data.lastMessageId;
  const outcome = { status: 'failed', code, reason, attempts, messageId, answer } as const;
  const result = await publish(processing, data, outcome);
  const kept = {
    ...data,
    submittedIn: undefined,
    unanswered: undefined,
    messageId: undefined,
    answered: undefined,
    waitedMs: undefined,
    lastMessageId: messageId,
    attempts: 0,
  };
  return { kind: 'fail', result, data: kept };
}

/** The result is in the run's results queue before its describe job ends: no crash between loses it. */
async function publish(
  { job, deps }: Processing,
  data: DescribeJobData,
  outcome: Outcome,
): Promise<ResultJobData> {
  const { run, submits, polls, maybePaid, rescued, inputTokens, outputTokens } = data;
  const result = { image: job.image, outcome, submits, polls, maybePaid, rescued, inputTokens, outputTokens };
  job.log(`published to run ${run}`);
  const isPaid = outcome.status === 'described' || outcome.code === 'bad-response';
  if (isPaid) await deps.spending.add(run, { answered: 1 });
  await deps.publisher.commit({ run, result });
  return result;
}

/** More in one job would keep the coordinator's memory and Redis busy for too long at a time. */
const MOST_TOGETHER = 50;

export interface PublishedResult {
  readonly run: string;
  readonly result: ResultJobData;
}

/**
 * Publishes results to their runs: the first at once, and those that come meanwhile together in the next jobs. So a
 * coordinator takes and acknowledges many of them at a time when there are many, and none waits for more to come.
 */
export function createResultPublisher(
  connection: Pick<QueueConnection, 'passingQueue' | 'noteTrouble'>,
): GroupCommit<PublishedResult> {
  const add = async (entries: readonly PublishedResult[]) => {
    const runs = new Set(entries.map(({ run }) => run));
    const added = [...runs].map((run) => {
      const results = entries.filter((entry) => entry.run === run).map(({ result }) => result);
      return retryUntilUp(connection, () =>
        connection
          .passingQueue<PublishedResults, null>(resultsQueueName(run))
          .add(RESULT_JOB, resultsTogether(results)),
      );
    });
    await Promise.all(added);
  };
  return new GroupCommit(add, { maxEntries: MOST_TOGETHER, goesOnAfterFailure: true });
}
