import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { BusyError, messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { lastWord } from '../shared/queue/last-word.js';
import { isDeadHere, runLeaseName } from '../shared/run-leases.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { sleep } from '../shared/sleep.js';

const TTL_MS = 15_000;
const RENEW_EVERY_MS = 5000;
const LOOK_EVERY_MS = 500;
/** A queue that is away lets the lease run out instead. */
const RELEASE_MS = 2000;

/**
 * A run's lease in the queue: one home at a time, on whatever machine, also where the output and its run
 * file were copied. A lease that a dead process of this machine has left over is taken at once.
 */
export class RunLease {
  readonly #ended = new AbortController();
  #renewing: Promise<void> = Promise.resolve();

  private constructor(
    private readonly connection: Pick<QueueConnection, 'store' | 'isAway'>,
    private readonly name: string,
    private readonly owner: string,
    private readonly onLost: (error: unknown) => void,
    private readonly logger: Logger,
  ) {}

  /**
   * Takes the lease; waits as long as a dead home's may still run.
   * @param onLost is called when another home has it, which can only be after an outage
   * @throws {BusyError} when a living home has it
   */
  static async take(
    connection: Pick<QueueConnection, 'store' | 'isAway'>,
    run: string,
    options: { onLost: (error: unknown) => void; logger: Logger; signal: AbortSignal },
  ): Promise<RunLease> {
    const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
    const lease = new RunLease(connection, runLeaseName(run), owner, options.onLost, options.logger);
    await lease.#acquire(run, options.signal);
    lease.#renewing = lease.#renew();
    return lease;
  }

  async release(): Promise<void> {
    this.#ended.abort();
    await this.#renewing;
    try {
      await unlessAborted(
        this.connection.store.release(this.name, this.owner),
        lastWord(this.connection, RELEASE_MS),
      );
    } catch (error) {
      this.logger.debug({ error: messageOf(error) }, 'the lease runs out by itself');
    }
  }

  async #acquire(run: string, signal: AbortSignal): Promise<void> {
    const giveUpAt = performance.now() + TTL_MS + RENEW_EVERY_MS;
    for (;;) {
      if (await this.connection.store.lease(this.name, this.owner, TTL_MS)) return;
      const holder = (await this.connection.store.leaseOwner(this.name)) ?? '';
      if (await isDeadHere(holder)) await this.connection.store.release(this.name, holder);
      else if (performance.now() > giveUpAt || !(await sleep(LOOK_EVERY_MS, signal))) {
        signal.throwIfAborted();
        const [host = '', pid = ''] = holder.split('/');
        throw new BusyError(`another process has the run ${run}: pid ${pid} on ${host}`);
      }
    }
  }

  async #renew(): Promise<void> {
    while (await sleep(RENEW_EVERY_MS, this.#ended.signal)) {
      try {
        const renewing = this.connection.store.lease(this.name, this.owner, TTL_MS);
        if (await unlessAborted(renewing, this.#ended.signal)) continue;
        this.onLost(new BusyError('another process has taken this run over'));
        return;
      } catch (error) {
        // The queue is away, for everybody: the next renewal tells who has it then.
        this.logger.debug({ error: messageOf(error) }, 'the lease could not be renewed');
      }
    }
  }
}
