import { messageOf } from '../shared/errors.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessAborted } from '../shared/waiting.js';
import { type ListedSchedule, listSchedules } from './schedules.js';
import { type Pause, type ServiceStatus, adviceFor, readServiceStatus } from './views.js';

/** How an account's pauses are called. */
export const PAUSES: Readonly<Record<Pause['kind'], string>> = {
  token: 'token refused',
  quota: 'quota spent',
  'set-up': 'nothing is described',
  down: 'the API is down',
  rate: '429',
  paused: 'the queue was paused by hand',
  'no-worker': 'no worker: start one with `bulk-describe worker`',
};

/** All that there are, in the order in which they are shown. */
export const TROUBLE_KINDS = ['queue', ...Object.keys(PAUSES), 'overdue', 'failed', 'no-server', 'silent'];

/** Something that keeps work from being done, and that a person may have to see to. */
export interface Trouble {
  /**
   * queue: it is full, read-only or evicts. overdue, failed: a schedule has not run, or its last run ended with another
   * exit code than 0. no-server: requests wait for one. silent: a run whose coordinator is gone. The others are an account's.
   */
  readonly kind: 'queue' | 'overdue' | 'failed' | 'no-server' | 'silent' | Pause['kind'];
  /** The queue, the schedule, the output (else the manifest) of the first request, the output of the run, or the account. */
  readonly about: string;
  /** Epoch milliseconds; undefined where nobody knows. */
  readonly since?: number | undefined;
  /** When it ends by itself: nobody has to be called. */
  readonly until?: number | undefined;
  /** What it is; and why, or what helps, which may be empty. One line each. */
  readonly text: string;
  readonly reason: string;
}

export type CheckedStatus = Awaited<ReturnType<typeof readCheckedStatus>>;

/** What goes on at a queue, and what is wrong there. */
export async function readCheckedStatus(connection: QueueConnection) {
  const [status, schedules, queue, isPaused] = await Promise.all([
    readServiceStatus(connection),
    listSchedules(connection),
    queueTrouble(connection),
    connection.queue(RUNS_QUEUE).isPaused(),
  ]);
  const troubles = troublesOf({ status, schedules, queue: queue?.short, isPaused });
  return { ...status, schedules, troubles };
}

/** A scheduled run begins within a second, unless its server has to start first. */
const LATE_MS = 10_000;
const NO_SERVER = 'no server is running: start `bulk-describe serve`';

/** What is wrong at a queue, the worst first. */
export function troublesOf({
  status: { at, queue: label, runs, accounts, requests, homes: servers },
  ...facts
}: {
  readonly status: Pick<ServiceStatus, 'at' | 'queue' | 'runs' | 'accounts' | 'requests' | 'homes'>;
  readonly schedules: readonly Pick<ListedSchedule, 'name' | 'nextAt' | 'record'>[];
  /** Why the queue takes no work. */
  readonly queue: string | undefined;
  /** Somebody has paused the queue that servers take runs from. */
  readonly isPaused: boolean;
}): Trouble[] {
  const troubles: Trouble[] = [];
  if (facts.queue !== undefined)
    troubles.push({ kind: 'queue', about: label, text: facts.queue, reason: '' });
  if (facts.isPaused) {
    const reason = 'servers take up nothing; resume it on the dashboard';
    troubles.push({ kind: 'paused', about: RUNS_QUEUE, text: PAUSES.paused, reason });
  }
  for (const { account: about, pauses } of accounts) {
    for (const pause of pauses) {
      const reason = pause.kind === 'paused' ? 'resume it on the dashboard' : pause.reason;
      troubles.push({ ...pause, about, text: PAUSES[pause.kind], reason });
    }
  }
  const isServed = servers.length > 0;
  for (const { name: about, nextAt: since, record } of facts.schedules) {
    if (since !== undefined && at - since > LATE_MS) {
      const reason = isServed ? '' : NO_SERVER;
      troubles.push({ kind: 'overdue', about, since, text: 'schedule overdue', reason });
    }
    const { lastExit = 0, lastAt, lastText = '' } = record;
    if (lastExit !== 0) {
      const text = `schedule failed with exit code ${lastExit}`;
      troubles.push({ kind: 'failed', about, since: lastAt, text, reason: lastText });
    }
  }
  if (requests.waiting > 0 && !isServed) {
    const [first] = requests.next;
    const text = requests.waiting === 1 ? 'a run waits' : `${requests.waiting} runs wait`;
    const about = first?.output ?? first?.manifest ?? RUNS_QUEUE;
    troubles.push({ kind: 'no-server', about, since: first?.since, text, reason: NO_SERVER });
  }
  for (const run of runs) {
    if (run.state !== 'silent' || run.cancelled === true) continue;
    const reason = adviceFor(run, { homes: servers }) ?? '';
    troubles.push({ kind: 'silent', about: run.output, since: run.seenAt, text: 'run silent', reason });
  }
  return troubles;
}

/** A caller may give up after a few seconds, so the answer comes before that. */
const READY_DEADLINE_MS = 2000;

/** Why a queue takes no work at the moment. */
interface QueueTrouble {
  /** Without where it is: for everybody. */
  readonly short: string;
  readonly full: string;
}

/**
 * Looks whether a queue takes work; undefined when it does. A Redis that is full, or has become a replica, still answers
 * reads, so this writes.
 * @param takenFrom names of the queues that must not be paused
 */
export async function queueTrouble(
  connection: QueueConnection,
  takenFrom: readonly string[] = [],
): Promise<QueueTrouble | undefined> {
  const { label, storage } = connection;
  const signal = AbortSignal.timeout(READY_DEADLINE_MS);
  try {
    await unlessAborted(storage.probe(), signal);
    const refusal = await unlessAborted(storage.refusal(), signal);
    if (refusal !== undefined) return { short: refusal.replace(label, 'it'), full: refusal };
    for (const name of takenFrom) {
      if (!(await unlessAborted(connection.queue(name).isPaused(), signal))) continue;
      const text = `the queue ${name} is paused by hand: nothing is taken from it until it is resumed (on the dashboard)`;
      return { short: text, full: text };
    }
    return undefined;
  } catch (error) {
    if (signal.aborted)
      return {
        short: 'the queue does not answer',
        full: `the queue ${label} does not answer: no answer in 2 s`,
      };
    const full = storage.classify(error);
    if (full !== undefined) return { short: full.replace(` at ${label}`, ''), full };
    const short = 'the queue takes no writes';
    return { short, full: `the queue ${label} takes no writes: ${messageOf(error)}` };
  }
}
