import { cancelRun } from '../service/cancel-run.js';
import { retryRun } from '../service/enqueue-run.js';
import { knownAccounts } from '../service/views.js';
import { BulkDescribeError, UsageError } from '../shared/errors.js';
import { RUNS_QUEUE, partsOfJobId } from '../shared/jobs.js';
import { count, plural } from '../shared/plural.js';
import { RUNS } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessMoved } from '../shared/queue/job-moves.js';
import { jobsOf } from './images.js';
import { cancelledText } from './texts.js';

/** A server or a coordinator that has not answered by then is busy or gone: whoever pressed the button is told so. */
export const ACTION_DEADLINE_MS = 20_000;

/** What the buttons of the pages do, by the last part of their forms' addresses. */
const ACTIONS = {
  'cancel-run': (connection: QueueConnection, run: string, signal: AbortSignal) =>
    cancelRun(connection, run, signal).then(cancelledText),
  'retry-run': retryWhole,
  'retry-images': retryImages,
  'retry-image': retryImage,
  'pause-account': async (connection: QueueConnection, name: string) => {
    await (await accountQueue(connection, name)).pause();
    return 'paused: what is submitted is finished, and nothing more is taken until it is resumed';
  },
  'resume-account': async (connection: QueueConnection, name: string) => {
    // That of the runs may have been paused by whoever reaches it; here it can only be resumed.
    const queue = name === RUNS_QUEUE ? connection.queue(name) : await accountQueue(connection, name);
    await queue.resume();
    return 'resumed';
  },
  'hurry-account': async (connection: QueueConnection, name: string) => {
    await (await accountQueue(connection, name)).promoteJobs();
    return 'what waited for its next attempt is taken as soon as the rate allows';
  },
};

type ActionName = keyof typeof ACTIONS;

export function isAction(name: string): name is ActionName {
  return Object.hasOwn(ACTIONS, name);
}

/**
 * Does what a button says.
 * @param id a run's, a describe job's, or the name of an account's queue
 * @returns what was done, or why not, in one line for people
 */
export async function act(connection: QueueConnection, name: ActionName, id: string): Promise<string> {
  const signal = AbortSignal.timeout(ACTION_DEADLINE_MS);
  try {
    return await ACTIONS[name](connection, id, signal);
  } catch (error) {
    if (error instanceof BulkDescribeError) return error.message;
    if (!(error instanceof DOMException)) throw error;
    return `no answer within ${ACTION_DEADLINE_MS / 1000} s: look here again in a moment, and try once more`;
  }
}

async function retryWhole(connection: QueueConnection, run: string, signal: AbortSignal): Promise<string> {
  const retried = await retryRun(connection, run, { signal });
  switch (retried.kind) {
    case 'begun':
      return `a server takes the failed rows of ${retried.output} up again`;
    case 'marked':
      return `the next start of ${retried.output}'s command takes all failed rows up again, the permanent ones too`;
    case 'taken-back':
      return 'no server had time for it, so nothing was enqueued or paid: try again later';
    case 'left':
      return 'a server has just taken it up, and goes on';
    case 'unknown':
      return 'the queue does not answer, and the request may still be in it';
  }
}

/** All failed images of a run that goes on, as far as its queue keeps them. */
async function retryImages(connection: QueueConnection, run: string): Promise<string> {
  const { queueName } = await statusOf(connection, run);
  // All of them first: each that is taken up moves those behind it.
  const failed = [];
  for await (const job of jobsOf(connection, { run, queueName }, 'failed', Infinity)) failed.push(job);
  let taken = 0;
  for (const job of failed) if (await unlessMoved(job.retry('failed'))) taken++;
  const moved = failed.length - taken;
  const others = moved === 0 ? '' : `; ${count(moved)} had been taken up meanwhile`;
  return `${plural(taken, 'failed image')} taken up again: their rows come into the output as they are described${others}`;
}

/** Whatever the reason was: a person has looked at it. */
async function retryImage(connection: QueueConnection, id: string): Promise<string> {
  const { run = '' } = partsOfJobId(id) ?? {};
  const { queueName } = await statusOf(connection, run);
  const job = await connection.queue<unknown, unknown>(queueName).getJob(id);
  if (job === undefined || !(await unlessMoved(job.retry('failed'))))
    throw new UsageError('it is not failed any more: others are waited for or paid');
  return 'taken up again: its row comes into the output while the run goes on, or with its next start';
}

async function statusOf(connection: QueueConnection, run: string) {
  const status = await RUNS.find(connection.store, run);
  if (status === undefined) throw new UsageError(`there was no run ${run} in the last day`);
  return status;
}

/** To open any other name would make a queue of it. */
async function accountQueue(connection: QueueConnection, name: string) {
  const { store } = connection;
  const accounts = await knownAccounts(store, await RUNS.list(store));
  if (!accounts.has(name)) throw new UsageError('nobody has worked for this account lately');
  return connection.queue(name);
}
