import type { DescribeJobData, ResultJobData } from '../shared/jobs.js';
import type { ErrorCode, Outcome, Prompts } from '../shared/outcome.js';
import type { ActiveJob } from './activation-tools.js';

/** How an activation of a describe job ends, and what is to become of the job. */
export type Ending =
  /** The image has its outcome; `data` is what a failed job keeps for being taken up again. */
  | { readonly kind: 'outcome'; readonly result: ResultJobData; readonly data: DescribeJobData }
  /** To the head of the queue, for another worker. */
  | { readonly kind: 'hand-back'; readonly data: DescribeJobData }
  /** Try again after a while; takes a new token of the limiter. */
  | { readonly kind: 'delay'; readonly data: DescribeJobData; readonly ms: number }
  /** The whole queue waits. */
  | { readonly kind: 'hold'; readonly data: DescribeJobData; readonly ms: number }
  /** This worker waits, since the API is down for it; others may reach it. */
  | { readonly kind: 'rest'; readonly data: DescribeJobData; readonly ms: number }
  /** This worker's token is refused, or the account's quota is spent. */
  | { readonly kind: 'stop'; readonly data: DescribeJobData; readonly why: StopWhy; readonly reason: string };

export type StopWhy = 'token' | 'quota';

export function described(job: ActiveJob, data: DescribeJobData, prompts: Prompts): Ending {
  job.report(100);
  job.tell(`completed after ${data.polls} poll(s)`);
  return endWith(job, data, {
    status: 'described',
    prompts,
    messageId: data.messageId ?? '',
    describedAt: new Date().toISOString(),
  });
}

export function failed(job: ActiveJob, data: DescribeJobData, code: ErrorCode, reason: string): Ending {
  job.tell(`failed (${code}): ${reason}`);
  const messageId = data.messageId ?? data.lastMessageId;
  const { attempts } = data;
  return endWith(job, data, { status: 'failed', code, reason, attempts, messageId });
}

function endWith(job: ActiveJob, data: DescribeJobData, outcome: Outcome): Ending {
  const { submits, polls, maybePaid, rescued } = data;
  return {
    kind: 'outcome',
    result: { image: job.image, outcome, submits, polls, maybePaid, rescued },
    data: {
      ...data,
      submittedIn: undefined,
      unanswered: undefined,
      messageId: undefined,
      answered: undefined,
      waitedMs: undefined,
      lastMessageId: data.messageId ?? data.lastMessageId,
      attempts: 0,
    },
  };
}
