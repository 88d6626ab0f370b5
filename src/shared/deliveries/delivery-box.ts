import type { SharedStore } from '../queue/store.js';

/** How many deliveries are kept, and for how long: early ones, and those that come while no worker is there. */
export const DELIVERY_BOUNDS = { ttlMs: 60 * 60_000, max: 10_000 } as const;

/** What a delivery claims to be about; nothing of it is certain. */
export interface DeliveryClaim {
  /** A ref that was made here, see `CallbackKeys`. */
  readonly ref: string | undefined;
  readonly messageId: string | undefined;
}

export function deliveryBoxName(queueName: string): string {
  return `deliveries:${queueName}`;
}

/** The box of deliveries that came without a ref: strangers could fill it, so the others have one of their own. */
export function unnamedBoxName(queueName: string): string {
  return `${deliveryBoxName(queueName)}:unnamed`;
}

/** Letters are named without spaces. */
export function messageLetter(messageId: string): string {
  return encodeURIComponent(messageId);
}

/** Puts a delivery where whoever waits for it hears of it, now or later. Its prompts are not kept. */
export async function putDelivery(
  store: SharedStore,
  queueName: string,
  { ref, messageId }: DeliveryClaim,
): Promise<void> {
  if (ref !== undefined) {
    await store.putLetter(deliveryBoxName(queueName), ref, messageId ?? '', DELIVERY_BOUNDS);
    return;
  }
  if (messageId === undefined) return;
  await store.putLetter(unnamedBoxName(queueName), messageLetter(messageId), messageId, DELIVERY_BOUNDS);
}
