import { backoffMs } from '../describe-api/attempt-policy.js';
import type { Submitted } from '../describe-api/client.js';
import { RefusalError } from '../describe-api/errors.js';
import { messageOf } from '../shared/errors.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { noteSetAside } from '../shared/run-leases.js';
import { sleep } from '../shared/waiting.js';
import { MessagePolls, pollOnce } from './message-polls.js';
import { BadImageError } from '../shared/prepare-image.js';
import {
  type ActiveJob,
  type Processing,
  type ProcessingDeps,
  type ProcessingOutcome,
  release,
  publishDescribed,
  publishFailed,
} from './processing.js';
import { WaitBeforeSubmit, countCrashes, recoverUnconfirmed, seedOf } from './recovery.js';
import { endSubmitFailure, holdSubmits, withUsage } from './submit-failure.js';

const FIRST_POLLS_LOOK_MS = 100;

/**
 * Processes a describe job once: from where its data says it is to what becomes of it.
 *
 *   no message --submit--> waiting for a message --poll--> completed: its result is published
 *       ^          |             |                             ^
 *       |          |             +--- expired or failed: a new submit
 *       |          +--- described at once: nothing is polled --+
 *       +---------------------------------------------------- (the new submit)
 *
 * What a submit was paid for is saved before anything else is done: a job that has a messageId never submits, and
 * one that has the prompts as well publishes them. With webhooks a submit whose answer was lost waits for its delivery
 * before there is a new one: see recovery.ts.
 * Between two submits the processing ends ("delay"), so that every submit has passed the queue's rate limit.
 */
export async function processImage(
  job: ActiveJob,
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<ProcessingOutcome> {
  const isReattached = job.data.messageId !== undefined;
  // Before anything is awaited: an image that is taken up after this one has to see it.
  if (isReattached) deps.firstPolls.add(job);
  // Before anything is submitted, since a delivery can be faster than the submit's answer.
  const submittedIn = isReattached ? job.data.submittedIn : undefined;
  const callback = deps.webhooks?.callback(seedOf(job, submittedIn ?? job.attemptsStarted));
  const processing = { job, deps, stopping, callback };
  try {
    let data = await countCrashes(job, deps.webhooks !== undefined);
    const { submits } = data;
    const isPaid = isReattached || data.unanswered !== undefined;
    if (!isPaid && !(await mayPay(processing))) return await setAside(processing, data);

    if (data.messageId === undefined) {
      const submitted = await submitInTurn(processing, data);
      if ('kind' in submitted) return submitted;
      data = submitted;
    } else {
      const what = data.answered === undefined ? 'waiting for' : 'publishing';
      job.log(`taken up again: ${what} message ${data.messageId}`);
    }

    const outcome =
      data.answered === undefined
        ? await pollUntilCompleted(processing, data, isReattached)
        : await publishDescribed(processing, data, data.answered);
    // Not at the submit: an API may take a URL that it cannot load, and say so of the message. Nor of an earlier submit, for
    // which the image itself may have been sent.
    if (outcome.kind === 'complete' && data.submits > submits) await deps.images.described(data.url);
    return outcome;
  } finally {
    deps.firstPolls.delete(job);
    callback?.watch.end();
  }
}

/**
 * Waits for all that a submit has to wait for, and makes it.
 * @returns what becomes of the job, or the data with the message
 */
async function submitInTurn(
  processing: Processing,
  start: DescribeJobData,
): Promise<DescribeJobData | ProcessingOutcome> {
  const { job, deps, stopping } = processing;
  const wait = new WaitBeforeSubmit(job);
  let data = start;
  if (data.lastMessageId !== undefined) {
    await wait.begin(data);
    const checked = await checkLastMessage(processing, data, data.lastMessageId);
    if ('kind' in checked) return checked;
    data = checked;
  }
  if (data.unanswered !== undefined) return await recoverUnconfirmed(processing, data, data.unanswered);
  while (deps.firstPolls.size > 0 && !stopping.aborted) {
    await wait.begin(data);
    await sleep(FIRST_POLLS_LOOK_MS, stopping);
  }
  if (!deps.images.sendsUrl(data.url)) await wait.begin(data);
  // Before it takes a permit: one that cannot be read costs none.
  const image = await readImage(processing, data);
  if (typeof image === 'object') return image;
  const unsubmitted = data;
  if (!(await deps.submitLimiter.take(stopping, () => wait.begin(unsubmitted))))
    return await release(processing, data);
  // The coordinator may have died while the image waited for its permit.
  if (!(await mayPay(processing))) return await setAside(processing, data);
  const downMs = deps.health.submitDelayMs();
  if (downMs > 0) {
    await wait.begin(data);
    await deps.intake.rest(downMs);
    const why = `the API is down: this worker rests ${(downMs / 1000).toFixed(1)} s`;
    return { kind: 'release', data, why };
  }
  await wait.end(data);
  if (!(await deps.spending.takeCall(data.run))) {
    const why = 'its run makes no more submits: it was cancelled, or its budget is spent';
    return await setAside(processing, data, why);
  }
  // Told to stop while the queue answered: nothing is on the wire yet.
  if (stopping.aborted) {
    await deps.spending.giveCallBack(data.run);
    return await release(processing, data);
  }
  return await submit(processing, data, image);
}

/** The run's coordinator promotes the job when it comes back; looked at again each time, it would spend permits. */
const SET_ASIDE_MS = 15 * 60_000;

/** Whether the run has a coordinator, which has asked for the image. */
async function mayPay({ job, deps }: Processing): Promise<boolean> {
  return !job.isHeld && (await deps.living.has(job.data.run));
}

/** Puts off an image that nobody has asked for: it is paid for when its run goes on, and has come to its row. */
async function setAside(
  { job, deps }: Processing,
  data: DescribeJobData,
  why = job.isHeld
    ? 'its row has not been read yet: it waits for that'
    : 'its run has no coordinator: it waits until a server or the next start of the run takes it up',
): Promise<ProcessingOutcome> {
  const { connection } = deps;
  await retryUntilUp(connection, () => noteSetAside(connection.store, data.run, job.image));
  job.log(why);
  return { kind: 'delay', data, ms: SET_ASIDE_MS };
}

/** @returns what is submitted; or, where the image cannot be read, what becomes of the job: nothing is paid for it */
async function readImage(processing: Processing, data: DescribeJobData): Promise<string | ProcessingOutcome> {
  const { deps, stopping } = processing;
  try {
    return await deps.images.read(data.url, data.maxAttempts, stopping);
  } catch (error) {
    if (stopping.aborted) return release(processing, data);
    if (error instanceof BadImageError)
      return publishFailed(processing, data, { code: 'bad-image', reason: error.message });
    const [firstLine = ''] = messageOf(error).split('\n', 1);
    const reason = `images cannot be prepared here: ${firstLine}`;
    return release(processing, data, { why: 'set-up', reason });
  }
}

const LAST_MESSAGE_TRIES = 5;
/** Nobody needs to be told of shorter waits, which may come with each answer. */
const NOTED_REST_MS = 1000;

/**
 * Before a failed image is paid for again: its last message may have been completed after all.
 * @returns what becomes of the job, or the data with which it is submitted
 */
async function checkLastMessage(
  processing: Processing,
  data: DescribeJobData,
  messageId: string,
): Promise<DescribeJobData | ProcessingOutcome> {
  let { polls } = data;
  const fresh = { lastMessageId: undefined, attempts: 0 };
  const startOver = (lost = 0) => ({ ...data, ...fresh, polls, maybePaid: data.maybePaid + lost });
  for (let tries = 1; tries <= LAST_MESSAGE_TRIES; tries++) {
    const poll = await pollOnce(processing, messageId, () => data.deadlineMs);
    polls += poll.polls;
    if (poll.kind === 'end') return release(processing, { ...data, polls }, poll.refusal);
    if (poll.kind === 'message') {
      // One that is still worked on may be completed beside the new one.
      if (poll.message.status !== 'completed') return startOver(poll.message.status === 'working' ? 1 : 0);
      return publishDescribed(processing, { ...data, polls, messageId }, poll.message.prompts);
    }
    // It is gone.
    if (poll.error instanceof RefusalError && poll.error.status === 404) return startOver();
    await sleep(backoffMs(tries, Math.random()), processing.stopping);
  }
  // An API that is down says nothing about the message: it is asked again before anything is paid.
  // Where it is up for the others, the message cannot be had: it may be paid for without anything to show for it.
  if (processing.deps.health.downSince === undefined) return startOver(1);
  return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(LAST_MESSAGE_TRIES, Math.random()) };
}

/**
 * The paid call. Its answer is stored before anything else happens.
 * @returns what becomes of the job, or the data with the message
 */
async function submit(
  processing: Processing,
  data: DescribeJobData,
  image: string,
): Promise<DescribeJobData | ProcessingOutcome> {
  const { job, deps, callback, stopping } = processing;
  const counted = { ...data, submits: data.submits + 1 };
  const startedAt = deps.now();
  let submitted: Submitted;
  try {
    const callsBack = callback && { ref: callback.ref, webhookOverride: callback.url };
    const { prompt, wrong, deadlineMs } = data;
    submitted = await deps.metrics.submit(
      deps.client.submit({ url: image, prompt, wrong, ...callsBack }, { deadlineMs }),
    );
  } catch (error) {
    if (await deps.images.refusedUrl(error, data.url, image, stopping)) {
      job.log(`its URL was refused, and it is sent itself: ${messageOf(error)}`);
      return { kind: 'delay', data: counted, ms: 0 };
    }
    return endSubmitFailure(processing, counted, error);
  }
  const { messageId, completed, restMs } = submitted;
  const attempts = data.attempts + 1;
  const submittedIn = callback && job.attemptsStarted;
  const known = await withUsage(deps, counted, completed?.usage);
  const paid = { ...known, attempts, messageId, submittedIn, waitedMs: 0, lastMessageId: undefined };
  const stored = completed === undefined ? paid : { ...paid, answered: completed.prompts };
  await job.save(stored);
  deps.health.succeeded('submit');
  await retryUntilUp(deps.connection, () => deps.limits.submitted());
  if (completed !== undefined) {
    deps.schedule.completed(deps.now() - startedAt, 0);
    deps.metrics.completed(deps.now() - startedAt, 0);
  }
  if (restMs !== undefined) {
    if (restMs >= NOTED_REST_MS) await retryUntilUp(deps.connection, () => deps.limits.resting(restMs));
    await holdSubmits(restMs, deps);
  }
  job.log(`submitted (attempt ${attempts} of ${paid.maxAttempts}): message ${messageId}`);
  return stored;
}

/**
 * Polls until the message is completed, has expired, or the deadline is over.
 * @param isReattached an earlier processing submitted it: the first poll is made at once, since nobody knows how long ago
 *   that was
 */
async function pollUntilCompleted(
  processing: Processing,
  start: DescribeJobData,
  isReattached: boolean,
): Promise<ProcessingOutcome> {
  const { job, deps, stopping, callback } = processing;
  const { messageId = '', deadlineMs } = start;
  const startedAt = deps.now();
  const before = start.waitedMs ?? 0;
  const waited = () => before + deps.now() - startedAt;
  let { polls } = start;
  const current = (): DescribeJobData => ({ ...start, polls, waitedMs: Math.round(waited()) });
  let failures = 0;
  let lastPollAt = before;
  let isOverdue = isReattached;
  const messagePolls = new MessagePolls(deps, callback?.watch, messageId);
  for (;;) {
    const leftMs = Math.max(0, deadlineMs - waited());
    const dueMs = isOverdue ? 0 : messagePolls.dueMs(waited(), failures);
    isOverdue = false;
    if (!(await messagePolls.come(Math.min(dueMs, leftMs), stopping))) return release(processing, current());
    // Not past the deadline, at which the message is to be asked for once more.
    const poll = await pollOnce(processing, messageId, () => deadlineMs - waited());
    polls += poll.polls;
    if (poll.kind === 'end') return release(processing, current(), poll.refusal);
    if (poll.kind === 'failure') {
      failures++;
      job.log(`poll failed: ${messageOf(poll.error)}`);
    } else {
      const { message } = poll;
      failures = 0;
      if (message.status === 'incomplete') return endIncomplete(processing, current(), message.reason);
      if (message.status === 'completed') {
        // After a crash the time between the processings is not known.
        messagePolls.completed(waited(), waited() - lastPollAt, !isReattached);
        return publishDescribed(processing, current(), message.prompts);
      }
      job.report(message.progress);
    }
    lastPollAt = waited();
    deps.firstPolls.delete(job);
    if (leftMs === 0) {
      const reason = `message ${messageId} was not completed within ${Math.round(deadlineMs / 1000)} s`;
      return publishFailed(processing, current(), { code: 'deadline', reason });
    }
  }
}

/** Expired or failed, the submit is used up: no service says which of its failures a new one would not meet. */
async function endIncomplete(
  processing: Processing,
  data: DescribeJobData,
  why: string | undefined,
): Promise<ProcessingOutcome> {
  const how = why === undefined ? 'expired before it was completed' : `failed: ${why}`;
  const reason = `message ${data.messageId ?? ''} ${how}`;
  if (data.attempts >= data.maxAttempts)
    return publishFailed(processing, data, { code: 'incomplete', reason });
  processing.job.log(`${reason}: submitting again`);
  return { kind: 'delay', data: { ...data, messageId: undefined, waitedMs: undefined }, ms: 0 };
}
