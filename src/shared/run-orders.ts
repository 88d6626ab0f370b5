import type { SharedStore } from './queue/store.js';

/**
 * What people at other processes want of a run: small marks beside the queue, which its coordinator reads each second, or
 * at its next start.
 */
export interface RunOrders {
  /** No more submits; what is in flight is finished. The coordinator takes the mark away when it has read it. */
  readonly cancel: boolean;
  /** The next start takes failed rows up again, the permanent ones too; kept until such a run has come to its end. */
  readonly retryAll: boolean;
}

const SET = '1';

function recordOf(run: string): string {
  return `orders:${run}`;
}

export async function readRunOrders(store: SharedStore, run: string): Promise<RunOrders> {
  const fields = await store.getFields(recordOf(run));
  return { cancel: fields['cancel'] === SET, retryAll: fields['retryAll'] === SET };
}

/** Gives an order. */
export async function orderRun(store: SharedStore, run: string, order: keyof RunOrders): Promise<void> {
  await store.setFields(recordOf(run), { [order]: SET });
}

/** Takes an order away: it was read, carried out, or given up. */
export async function dropRunOrder(store: SharedStore, run: string, order: keyof RunOrders): Promise<void> {
  await store.setFields(recordOf(run), { [order]: null });
}
