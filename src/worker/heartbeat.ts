import { type Account, accountLabel } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import { ACCOUNTS, type WorkerStatus, workersOf } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { shutdownTimeout } from '../shared/queue/outage.js';
import { unlessAborted } from '../shared/waiting.js';

const ACCOUNT_EVERY_MS = 60_000;
const WITHDRAW_MS = 2000;

export interface HeartbeatAbout {
  readonly connection: QueueConnection;
  readonly account: Account;
  readonly queueName: string;
  readonly workerId: string;
  readonly logger: Logger;
}

/** What a worker tells of itself to everybody at the same queue. */
export class Heartbeat {
  #accountToldAt = -Infinity;

  constructor(private readonly about: HeartbeatAbout) {}

  /** To be called each second: who is not heard of counts as gone. */
  async announce(status: WorkerStatus): Promise<void> {
    const { connection, account, queueName, workerId } = this.about;
    await registry.publish(connection.store, workersOf(queueName), workerId, status);
    const now = performance.now();
    if (now - this.#accountToldAt < ACCOUNT_EVERY_MS) return;
    await registry.publish(connection.store, ACCOUNTS, queueName, {
      label: accountLabel(account),
      queueName,
    });
    this.#accountToldAt = now;
  }

  /** Takes the worker off the list, unless the queue is away. */
  async withdraw(): Promise<void> {
    const { connection, queueName, workerId, logger } = this.about;
    try {
      const withdrawn = registry.withdraw(connection.store, workersOf(queueName), workerId);
      await unlessAborted(withdrawn, shutdownTimeout(connection, WITHDRAW_MS));
    } catch (error) {
      logger.debug({ error: messageOf(error) }, 'the worker is taken off the list when its time is over');
    }
  }
}
