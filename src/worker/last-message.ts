import { judgePollFailure } from '../describe-api/attempt-policy.js';
import { backoffMs } from '../describe-api/backoff.js';
import { ConnectionError, RejectedError, StatusError } from '../describe-api/errors.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { sleep } from '../shared/sleep.js';
import type { ActivationTools, ActiveJob } from './activation-tools.js';
import { type Ending, described } from './ending.js';

const TRIES = 5;

/** Before a failed image is paid for again: its last message may have been completed after all. */
export async function checkLastMessage(
  job: ActiveJob,
  data: DescribeJobData,
  tools: ActivationTools,
  stopping: AbortSignal,
): Promise<DescribeJobData | Ending> {
  const messageId = data.lastMessageId ?? '';
  let polls = data.polls;
  const startOver = () => ({ ...data, polls, lastMessageId: undefined, attempts: 0 });
  for (let tries = 1; tries <= TRIES; tries++) {
    if (!(await tools.takePollPermit(stopping))) return { kind: 'hand-back', data: { ...data, polls } };
    polls++;
    try {
      const message = await tools.client.message(messageId, { signal: stopping });
      if (message.status !== 'completed') return startOver();
      return described(job, { ...data, polls, messageId }, message.prompts);
    } catch (error) {
      if (stopping.aborted) return { kind: 'hand-back', data: { ...data, polls } };
      if (isGone(error)) return startOver();
      if (error instanceof ConnectionError) polls--;
      const verdict = judgePollFailure(error);
      if (verdict.countsAsDown) tools.health.failed('poll', job.image);
      if (verdict.action === 'stop') {
        return { kind: 'stop', data: { ...data, polls }, why: 'token', reason: verdict.reason };
      }
      await sleep(verdict.retryAfterMs ?? backoffMs(tries, Math.random()), stopping);
    }
  }
  // An API that is down says nothing about the message: it is asked again before anything is paid.
  if (tools.health.downSince !== undefined) {
    return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(TRIES, Math.random()) };
  }
  return startOver();
}

function isGone(error: unknown): boolean {
  return (error instanceof StatusError || error instanceof RejectedError) && error.status === 404;
}
