import type { ActivationTools, ActiveJob } from './activation-tools.js';
import { type Ending, described } from './ending.js';
import { checkLastMessage } from './last-message.js';
import { PollTurns } from './poll-schedule.js';
import { setAside, submitImage } from './submit-image.js';
import { countCrashes, seedOf, takeUpUnanswered } from './recovery.js';
import { waitForMessage } from './wait-for-message.js';
import type { Callback } from './webhooks.js';

/**
 * One activation of a describe job: from where its data says it is to an ending.
 *
 *   no message --submit--> waiting for a message --poll--> completed: an outcome
 *       ^          |             |                             ^
 *       |          |             +--- expired or failed: a new submit
 *       |          +--- described at once: nothing is polled --+
 *       +---------------------------------------------------- (the new submit)
 *
 * With webhooks a submit whose answer was lost waits for its delivery before there is a new one: see rescue.ts.
 *
 * What a submit was paid for is saved before anything else is done: a job that has a messageId never submits, and
 * one that has the prompts as well hands them over.
 * Between two submits the activation ends ("delay"), so that every submit has passed the queue's limiter.
 *
 * Takes one image as far as it goes.
 * @param stopping aborts when the worker is to hand its images back; a submit on the wire is still awaited
 */
export async function describeImage(
  job: ActiveJob,
  tools: ActivationTools,
  stopping: AbortSignal,
): Promise<Ending> {
  // Before anything is awaited: an image that is activated after this one has to see it.
  const polled = job.data.messageId === undefined ? undefined : tools.firstPolls.expect();
  const submittedIn = job.data.messageId === undefined ? undefined : job.data.submittedIn;
  // Before anything is submitted, since a delivery can be faster than the submit's answer.
  const callback = tools.webhooks?.callback(seedOf(job, submittedIn ?? job.attemptsStarted));
  try {
    return await takeOnwards(job, tools, stopping, polled, callback);
  } finally {
    polled?.();
    callback?.watch.end();
  }
}

async function takeOnwards(
  job: ActiveJob,
  tools: ActivationTools,
  stopping: AbortSignal,
  polled: (() => void) | undefined,
  callback: Callback | undefined,
): Promise<Ending> {
  let data = await countCrashes(job, tools.webhooks !== undefined);
  const isPaid = data.messageId !== undefined || data.unanswered !== undefined;
  if (!isPaid && !(await tools.mayPay(data.run))) return setAside(job, data, tools);
  if (data.messageId === undefined && data.lastMessageId !== undefined) {
    const checked = await checkLastMessage(job, data, tools, stopping);
    if ('kind' in checked) return checked;
    data = checked;
  }
  if (data.messageId === undefined && data.unanswered !== undefined) {
    return takeUpUnanswered(job, data, data.unanswered, tools, stopping);
  }
  if (data.messageId === undefined) {
    const submitted = await submitImage(job, data, tools, stopping, callback);
    if ('kind' in submitted) return submitted;
    data = submitted;
  } else {
    const what = data.answered === undefined ? 'waiting for' : 'handing over';
    job.tell(`taken up again: ${what} message ${data.messageId}`);
  }
  if (data.answered !== undefined) return described(job, data, data.answered);
  const turns = new PollTurns(tools, callback, data.messageId ?? '');
  try {
    return await waitForMessage(job, data, data.messageId ?? '', { tools, turns, stopping, polled });
  } finally {
    turns.end();
  }
}
