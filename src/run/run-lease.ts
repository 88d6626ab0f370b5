import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { BusyError, messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { shutdownTimeout } from '../shared/queue/outage.js';
import { isDeadHere, runLeaseName } from '../shared/run-leases.js';
import type { SharedStore } from '../shared/queue/store.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import type { RunControl } from './run-control.js';

const TTL_MS = 15_000;
const RENEW_EVERY_MS = 5000;
const LOOK_EVERY_MS = 500;
/** A queue that is away lets the lease run out instead. */
const RELEASE_MS = 2000;

interface Lease {
  readonly store: SharedStore;
  readonly name: string;
  readonly owner: string;
}

/**
 * Takes a run's lease in the queue: one coordinator at a time, on whatever machine, also where the output and its run file
 * were copied. Waits as long as a dead one's may still run; one that a dead process of this machine has left is taken at
 * once.
 * @param control fails the run when another coordinator has it, which can only be after an outage
 * @returns what releases it
 * @throws {BusyError} when a living coordinator has it
 */
export async function takeRunLease(
  connection: Pick<QueueConnection, 'store' | 'isAway'>,
  run: string,
  control: Pick<RunControl, 'fail' | 'signal'>,
  logger: Logger,
): Promise<() => Promise<void>> {
  const { store } = connection;
  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  const lease = { store, name: runLeaseName(run), owner };
  await acquire(lease, run, control.signal);
  const ended = new AbortController();
  const renewing = renew(lease, ended.signal, control, logger);
  return async () => {
    ended.abort();
    await renewing;
    try {
      await unlessAborted(store.release(lease.name, owner), shutdownTimeout(connection, RELEASE_MS));
    } catch (error) {
      logger.debug({ error: messageOf(error) }, 'the lease runs out by itself');
    }
  };
}

async function acquire({ store, name, owner }: Lease, run: string, signal: AbortSignal): Promise<void> {
  const giveUpAt = performance.now() + TTL_MS + RENEW_EVERY_MS;
  for (;;) {
    if (await store.lease(name, owner, TTL_MS)) return;
    const holder = (await store.leaseOwner(name)) ?? '';
    if (await isDeadHere(holder)) await store.release(name, holder);
    else if (performance.now() > giveUpAt || !(await sleep(LOOK_EVERY_MS, signal))) {
      signal.throwIfAborted();
      const [host = '', pid = ''] = holder.split('/');
      throw new BusyError(`another process has the run ${run}: pid ${pid} on ${host}`);
    }
  }
}

async function renew(
  { store, name, owner }: Lease,
  signal: AbortSignal,
  control: Pick<RunControl, 'fail'>,
  logger: Logger,
): Promise<void> {
  while (await sleep(RENEW_EVERY_MS, signal)) {
    try {
      if (await unlessAborted(store.lease(name, owner, TTL_MS), signal)) continue;
      control.fail(new BusyError('another process has taken this run over'));
      return;
    } catch (error) {
      // The queue is away, for everybody: the next renewal shows who has it then.
      logger.debug({ error: messageOf(error) }, 'the lease could not be renewed');
    }
  }
}
