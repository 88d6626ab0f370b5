import type { AccountLimits } from '../shared/account-limits.js';
import { type RateLimiter, holdQueue, limiterName } from '../shared/queue/limiter.js';
import type { SharedStore } from '../shared/queue/store.js';
import { noteSetAside } from '../shared/run-leases.js';
import type { ProcessingDeps } from './processing.js';
import type { ApiHealth } from './api-health.js';
import { FirstPolls } from './poll-schedule.js';
import { createPollSchedule } from './poll-schedule.js';
import type { SettleDeps } from './settle-job.js';
import type { LivingRuns } from './living-runs.js';
import type { WorkerMetrics } from './worker-metrics.js';

export interface DepsParts {
  readonly client: ProcessingDeps['client'];
  readonly limits: AccountLimits;
  readonly store: SharedStore;
  readonly queueName: string;
  readonly settle: SettleDeps;
  readonly health: ApiHealth;
  readonly submitLimiter: RateLimiter;
  readonly pollLimiter: RateLimiter;
  readonly metrics: WorkerMetrics;
  readonly living: LivingRuns;
  /** How long describes have been taking. */
  readonly latencies: readonly number[];
}

/** What all images of a worker work with; webhooks are added where the API is to call. */
export function createDeps(parts: DepsParts): ProcessingDeps {
  const { limits, store, settle, metrics, submitLimiter, pollLimiter } = parts;
  const { persist } = settle;
  return {
    client: metrics.counted(parts.client),
    health: parts.health,
    schedule: metrics.observed(createPollSchedule(parts.latencies)),
    firstPolls: new FirstPolls(),
    takeSubmitPermit: (signal) => submitLimiter.take(signal),
    takePollPermit: (signal) => pollLimiter.take(signal),
    mayPay: (run) => parts.living.has(run),
    setAside: (run, image) => persist(() => noteSetAside(store, run, image)),
    holdPolls: async (ms) => {
      await persist(() => store.holdPermits(limiterName('poll', parts.queueName), ms));
    },
    submitted: () => persist(() => limits.submitted()),
    refused: (retryAfterMs) => persist(() => limits.rateLimited(retryAfterMs)),
    holdSubmits: async (ms) => {
      const longEnough = Math.max(ms, settle.windowMs());
      await persist(() => holdQueue(settle.queue, store, longEnough));
    },
    now: () => performance.now(),
  };
}
