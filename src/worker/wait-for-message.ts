import { judgePollFailure } from '../describe-api/attempt-policy.js';
import { ConnectionError, isAnswer } from '../describe-api/errors.js';
import { messageOf } from '../shared/errors.js';
import type { DescribeJobData } from '../shared/jobs.js';
import type { ActivationTools, ActiveJob } from './activation-tools.js';
import { type Ending, described, failed } from './ending.js';
import type { PollTurns } from './poll-schedule.js';

interface Waiting {
  readonly tools: ActivationTools;
  readonly turns: PollTurns;
  readonly stopping: AbortSignal;
  /**
   * Of a message that an earlier activation submitted: to be called after the first poll, which is made at once,
   * since nobody knows how long ago that was.
   */
  readonly polled: (() => void) | undefined;
}

/** Polls until the message is completed, has expired, or the deadline is over. */
export async function waitForMessage(
  job: ActiveJob,
  start: DescribeJobData,
  messageId: string,
  { tools, turns, stopping, polled }: Waiting,
): Promise<Ending> {
  const startedAt = tools.now();
  const before = start.waitedMs ?? 0;
  const waited = () => before + tools.now() - startedAt;
  let { polls } = start;
  let failures = 0;
  let lastPollAt = before;
  let isOverdue = polled !== undefined;
  const current = (): DescribeJobData => ({ ...start, polls, waitedMs: Math.round(waited()) });

  for (;;) {
    const leftMs = start.deadlineMs - waited();
    const dueMs = isOverdue ? 0 : turns.dueMs(waited(), failures);
    isOverdue = false;
    const delayMs = Math.min(dueMs, Math.max(0, leftMs));
    const isLast = leftMs <= 0;
    if (!(await turns.come(delayMs, stopping)) || !(await tools.takePollPermit(stopping))) {
      return { kind: 'hand-back', data: current() };
    }
    const gapMs = waited() - lastPollAt;
    lastPollAt = waited();
    polls++;
    try {
      const message = await tools.client.message(messageId, { signal: stopping });
      failures = 0;
      tools.health.succeeded('poll');
      if (message.status === 'completed') {
        // After a crash the time between the activations is not known.
        turns.completed(waited(), gapMs, polled === undefined);
        return described(job, current(), message.prompts);
      }
      if (message.status === 'incomplete') return endIncomplete(job, current(), message.reason);
      job.report(message.progress);
    } catch (error) {
      if (stopping.aborted) return { kind: 'hand-back', data: current() };
      const verdict = judgePollFailure(error);
      if (verdict.action === 'stop') {
        return { kind: 'stop', data: current(), why: 'token', reason: verdict.reason };
      }
      failures++;
      job.tell(`poll failed: ${messageOf(error)}`);
      if (verdict.countsAsDown) tools.health.failed('poll', job.image);
      else if (isAnswer(error)) tools.health.answered('poll');
      if (error instanceof ConnectionError) polls--;
      // Not past the deadline, at which the message is to be asked for once more.
      const { retryAfterMs } = verdict;
      const toDeadlineMs = Math.max(0, start.deadlineMs - waited());
      if (retryAfterMs !== undefined) await tools.holdPolls(Math.min(retryAfterMs, toDeadlineMs));
    }
    polled?.();
    if (isLast) {
      const seconds = Math.round(start.deadlineMs / 1000);
      return failed(job, current(), 'deadline', `message ${messageId} was not completed within ${seconds} s`);
    }
  }
}

/** Expired or failed, the submit is used up: no service says which of its failures a new one would not meet. */
function endIncomplete(job: ActiveJob, data: DescribeJobData, why: string | undefined): Ending {
  const how = why === undefined ? 'expired before it was completed' : `failed: ${why}`;
  const reason = `message ${data.messageId ?? ''} ${how}`;
  if (data.attempts >= data.maxAttempts) return failed(job, data, 'incomplete', reason);
  job.tell(`${reason}: submitting again`);
  return { kind: 'delay', data: { ...data, messageId: undefined, waitedMs: undefined }, ms: 0 };
}
