import { readAccountLimits } from '../shared/account-limits.js';
import { formatRate } from '../shared/durations.js';
import { DEFAULT_LIMITS, scaleRate } from '../shared/limits.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { workersOf, type WorkerStatus } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { type Pause, pausesOf } from './pauses.js';

/** Images of one run in an account's queue. */
export interface RunImages {
  inFlight: number;
  waiting: number;
}

/** An account, as its queue has it. */
export interface AccountView {
  readonly account: string;
  readonly queueName: string;
  /** The limits as flags take them. */
  readonly rate: string;
  readonly pollRate: string;
  readonly maxInFlight: number;
  /** The share of the rate that the API lets through, in (0, 1], and the rate that makes. */
  readonly share: number;
  readonly learnedRate: string;
  readonly inFlight: number;
  readonly waiting: number;
  readonly workers: readonly WorkerStatus[];
  readonly pauses: readonly Pause[];
}

/** So many images of an account are looked at for whose they are; more are counted, and nobody's. */
const LOOK_AT = 5000;

/** @returns the account, and the images of each run by its id */
export async function viewAccount(
  connection: QueueConnection,
  { account, queueName }: { readonly account: string; readonly queueName: string },
  nowMs: number,
): Promise<{ view: AccountView; images: Map<string, RunImages> }> {
  const queue = connection.queue(queueName);
  const [found, workers, counts, active, waiting, isQueuePaused] = await Promise.all([
    readAccountLimits(connection.store, queueName, nowMs),
    registry.list(connection.store, workersOf(queueName)),
    queue.getJobCounts('active', 'waiting', 'prioritized', 'delayed'),
    queue.getRanges(['active'], 0, LOOK_AT - 1),
    queue.getRanges(['waiting', 'prioritized', 'delayed'], 0, LOOK_AT - 1),
    queue.isPaused(),
  ]);
  const { configured, share, fellAt, heldUntil } = found ?? {
    configured: DEFAULT_LIMITS,
    ...{ share: 1, fellAt: 0, heldUntil: 0 },
  };
  const inFlight = counts['active'] ?? 0;
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const images = new Map<string, RunImages>();
  countByRun(images, active, 'inFlight');
  countByRun(images, waiting, 'waiting');
  return {
    images,
    view: {
      account,
      queueName,
      rate: formatRate(configured.rate),
      pollRate: formatRate(configured.pollRate),
      maxInFlight: configured.maxInFlight,
      share,
      learnedRate: formatRate(scaleRate(configured.rate, share)),
      inFlight,
      waiting: all - inFlight,
      workers,
      pauses: pausesOf({ workers, fellAt, heldUntil, isQueuePaused, images: all }, nowMs),
    },
  };
}

/** A job's id begins with its run's. */
function countByRun(images: Map<string, RunImages>, jobIds: readonly string[], where: keyof RunImages): void {
  for (const id of jobIds) {
    const run = id.slice(0, id.indexOf('.'));
    const counts = images.get(run) ?? { inFlight: 0, waiting: 0 };
    counts[where]++;
    images.set(run, counts);
  }
}
