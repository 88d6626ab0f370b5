import type { AccountLimits } from '../shared/account-limits.js';
import { intervalMs } from '../shared/limits.js';
import type { SharedStore } from '../shared/queue/store.js';
import type { ActivationTools } from './activation-tools.js';
import type { ApiHealth } from './api-health.js';
import { FirstPolls } from './first-polls.js';
import { holdQueue } from './hold-queue.js';
import { createPollSchedule } from './poll-schedule.js';
import type { SettleTools } from './settle-job.js';
import { MARGIN } from './slot-pace.js';
import { SlotQueue } from './slot-queue.js';
import type { SubmitPace } from './submit-pace.js';
import type { WorkerMetrics } from './worker-metrics.js';

export interface ToolParts {
  readonly client: ActivationTools['client'];
  readonly limits: AccountLimits;
  readonly store: SharedStore;
  readonly queueName: string;
  readonly settle: SettleTools;
  readonly health: ApiHealth;
  readonly pace: SubmitPace;
  readonly metrics: WorkerMetrics;
  /** How long describes have been taking. */
  readonly latencies: readonly number[];
  /** The limits have changed, and the queue is to be told. */
  onLimits(): void;
}

/** What all images of a worker work with; webhooks are added where the API is to call. */
export function createTools(parts: ToolParts): ActivationTools {
  const { limits, store, settle, metrics, pace } = parts;
  const { persist } = settle;
  const slots = `polls:${parts.queueName}`;
  const pollSlots = new SlotQueue({
    intervalMs: () => intervalMs(limits.configured.pollRate) * MARGIN,
    takeSlots: async (interval, count) => {
      const given = await persist(() => store.takeSlots(slots, { intervalMs: interval }, count));
      return given.slots.map(({ inMs }) => inMs);
    },
  });
  return {
    client: metrics.counted(parts.client),
    health: parts.health,
    schedule: metrics.observed(createPollSchedule(parts.latencies)),
    firstPolls: new FirstPolls(),
    takeSubmitSlot: (signal) => pace.take(signal),
    takePollSlot: (signal) => pollSlots.take(signal),
    holdPolls: async (ms) => {
      await persist(() => store.holdSlots(slots, ms));
    },
    submitted: () => persist(() => limits.settle()),
    refused: async (retryAfterMs) => {
      const pauseMs = await persist(() => limits.fall(retryAfterMs));
      parts.onLimits();
      return pauseMs;
    },
    holdSubmits: async (ms) => {
      const longEnough = Math.max(ms, settle.windowMs());
      await persist(() => holdQueue(settle.queue, store, longEnough));
    },
    now: () => performance.now(),
  };
}
