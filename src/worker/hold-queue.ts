import type { SharedStore } from '../shared/queue/store.js';

/** The store's name for the slots of a queue's submits. */
export function submitSlots(queueName: string): string {
  return `submits:${queueName}`;
}

/**
 * Makes a whole queue wait: no worker takes a job of it. A longer wait that is under way is never shortened,
 * whoever asked for it.
 *
 * BullMQ knows one wait, and the last call wins, also when it is the shorter one. So a wait is put into the store
 * first, where it can only grow, and looked up again after BullMQ was told: whoever is the last to tell has seen
 * the longest. Submits of images that are active already wait for the same slots.
 */
export async function holdQueue(
  queue: { readonly name: string; rateLimit(ms: number): Promise<void> },
  store: Pick<SharedStore, 'holdSlots'>,
  ms: number,
): Promise<void> {
  const slots = submitSlots(queue.name);
  let toldMs = Math.ceil(await store.holdSlots(slots, Math.max(1, ms)));
  for (;;) {
    await queue.rateLimit(toldMs);
    const leftMs = Math.ceil(await store.holdSlots(slots, 0));
    if (leftMs <= toldMs) return;
    toldMs = leftMs;
  }
}
