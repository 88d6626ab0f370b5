import { messageOf } from '../shared/errors.js';
import { type DeliveryClaim, putDelivery } from '../shared/deliveries/delivery-box.js';
import { callbackKeys } from '../shared/deliveries/webhook-secret.js';
import type { CallbackKeys } from '../shared/deliveries/callback-keys.js';
import type { Logger } from '../shared/log.js';
import type { SharedStore } from '../shared/queue/store.js';
import { sleep } from '../shared/sleep.js';
import type { ListenAddress } from './listen-address.js';
import { type Receiver, startReceiver } from './receiver.js';

export interface AccountReceiverOptions {
  readonly store: SharedStore;
  /** The account's describe queue. */
  readonly queueName: string;
  /** The user's; else the one that the store keeps. */
  readonly secret: string | undefined;
  readonly listen: ListenAddress;
  readonly logger: Logger;
}

export interface AccountReceiver extends Receiver {
  readonly keys: CallbackKeys;
}

/** Deliveries that are on their way into the store at most; while it is away more are dropped, and polls find them. */
const MOST_PENDING = 10_000;
const CLOSE_DEADLINE_MS = 2000;

/** Starts a receiver that puts the deliveries of an account into the queue's store. */
export async function startAccountReceiver(options: AccountReceiverOptions): Promise<AccountReceiver> {
  const { store, queueName, secret, listen, logger } = options;
  const keys = await callbackKeys(store, queueName, secret);
  const pending = new Set<Promise<void>>();
  const put = async (claim: DeliveryClaim) => {
    try {
      await putDelivery(store, queueName, claim);
    } catch (error) {
      logger.warn({ error: messageOf(error) }, 'a delivery could not be stored: a poll finds its message');
    }
  };
  const receiver = await startReceiver({
    ...listen,
    keys,
    onDelivery: (claim) => {
      if (pending.size >= MOST_PENDING) return;
      const stored: Promise<void> = put(claim).finally(() => pending.delete(stored));
      pending.add(stored);
    },
  });
  return {
    keys,
    url: receiver.url,
    close: async () => {
      await receiver.close();
      const inTime = new AbortController();
      await Promise.race([Promise.all(pending), sleep(CLOSE_DEADLINE_MS, inTime.signal)]);
      inTime.abort();
    },
  };
}
