import { DELIVERY_FAULTS, type DeliveryFault, type WebhookFaults } from './options.js';
import { drawKind, type Random } from './random.js';

/** How a message is delivered: what goes wrong with that, and when it is sent, in milliseconds after its submit. */
export interface DeliveryPlan {
  readonly fault: DeliveryFault | undefined;
  readonly sendAtMs: readonly number[];
}

const EARLIEST_END = 0.9;
const SHORTEST_DELAY_MS = 1000;
const LONGEST_GAP_MS = 1000;

/** Plans a message's delivery: when the message is completed, unless something goes wrong. */
export function planDelivery(latencyMs: number, faults: WebhookFaults, random: Random): DeliveryPlan {
  const fault = drawKind(DELIVERY_FAULTS, faults, random);
  return { fault, sendAtMs: sendTimes(fault, latencyMs, random) };
}

function sendTimes(fault: DeliveryFault | undefined, latencyMs: number, random: Random): number[] {
  switch (fault) {
    case undefined:
      return [latencyMs];
    case 'lost':
      return [];
    case 'late':
      return [latencyMs + Math.max(SHORTEST_DELAY_MS, latencyMs) * (1 + random())];
    case 'early':
      return [latencyMs * EARLIEST_END * random()];
    case 'doubled':
      return [latencyMs, latencyMs + LONGEST_GAP_MS * random()];
  }
}
