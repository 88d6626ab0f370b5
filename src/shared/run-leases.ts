import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { BusyError } from './errors.js';
import { type Logger, debugError } from './log.js';
import type { QueueConnection } from './queue/connection.js';
import { atShutdown } from './queue/outage.js';
import { isKnownDead } from './process-identity.js';
import type { SharedStore } from './queue/store.js';
import { repeat, sleep, unlessAborted } from './waiting.js';

const LEASE_TTL_MS = 15_000;
const RENEW_EVERY_MS = 5000;
const LOOK_EVERY_MS = 500;
/** A queue that is away lets the lease run out instead. */
const RELEASE_MS = 2000;

/**
 * Takes a run's lease in the queue: one coordinator at a time, on whatever machine, also where the output and its run file
 * were copied. Waits as long as a dead one's may still run; one that a dead process of this machine has left is taken at
 * once.
 * @param about.control fails the run when another coordinator has it, which can only be after an outage
 * @param about.onWait is told why, when it has to wait
 * @returns what releases it
 * @throws {BusyError} when a living coordinator has it
 */
export async function takeRunLease(
  connection: Pick<QueueConnection, 'store' | 'outage'>,
  run: string,
  about: {
    readonly control: { readonly signal: AbortSignal; fail(error: unknown): void };
    readonly logger: Logger;
    readonly onWait?: (text: string) => void;
  },
): Promise<() => Promise<void>> {
  const { control, logger, onWait } = about;
  const { store } = connection;
  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  const name = runLeaseName(run);
  await acquire(store, run, owner, control.signal, onWait);
  const ended = new AbortController();
  const renew = async () => {
    if (await store.lease(name, owner, LEASE_TTL_MS)) return;
    control.fail(new BusyError('another process has taken this run over'));
    ended.abort();
  };
  // The queue is away, for everybody: the next renewal shows who has it then.
  const onError = debugError(logger, 'the lease could not be renewed');
  const renewing = repeat(RENEW_EVERY_MS, ended.signal, renew, onError);
  return async () => {
    ended.abort();
    await renewing;
    const released = store.release(name, owner);
    await atShutdown(connection, RELEASE_MS, released, debugError(logger, 'the lease runs out by itself'));
  };
}

async function acquire(
  store: SharedStore,
  run: string,
  owner: string,
  signal: AbortSignal,
  onWait?: (text: string) => void,
): Promise<void> {
  const name = runLeaseName(run);
  const giveUpAt = performance.now() + LEASE_TTL_MS + RENEW_EVERY_MS;
  for (let tries = 1; ; tries++) {
    if (await unlessAborted(store.lease(name, owner, LEASE_TTL_MS), signal)) return;
    const holder = (await unlessAborted(store.leaseOwner(name), signal)) ?? '';
    if (await isDeadHere(holder)) {
      await store.release(name, holder);
      continue;
    }
    const [host = '', pid = ''] = holder.split('/');
    const who = `pid ${pid} on ${host}`;
    if (tries === 1) onWait?.(`another process has the run (${who}), or has died: waiting for up to 20 s`);
    if (performance.now() > giveUpAt || !(await sleep(LOOK_EVERY_MS, signal))) {
      signal.throwIfAborted();
      throw new BusyError(`another process has the run ${run}: ${who}`);
    }
  }
}

/** The store's name of the lease that a run's coordinator holds. Its owner is `host/pid/random`. */
export function runLeaseName(run: string): string {
  return `run:${run}`;
}

/** Whether a coordinator has the run, or had it up to 15 s ago and is not known to be dead. */
export async function hasCoordinator(store: SharedStore, run: string): Promise<boolean> {
  const owner = await store.leaseOwner(runLeaseName(run));
  return owner !== undefined && !(await isDeadHere(owner));
}

/** Whether the owner of a lease was a process of this host that has ended. */
async function isDeadHere(owner: string): Promise<boolean> {
  const [host = '', pid] = owner.split('/');
  return await isKnownDead({ host, pid: Number(pid) });
}

/** A coordinator that was frozen for longer looks for its jobs in vain. */
const SET_ASIDE_MS = 24 * 3_600_000;

function setAsideGroup(run: string): string {
  return `set-aside:${run}`;
}

/**
 * Notes that an image of a run without a coordinator was set aside: its job was removed untouched, or put off. A
 * coordinator that was only frozen, or the next one, takes it up again.
 */
export async function noteSetAside(store: SharedStore, run: string, image: string): Promise<void> {
  await store.announce(setAsideGroup(run), image, '', SET_ASIDE_MS);
}

export async function listSetAside(store: SharedStore, run: string): Promise<string[]> {
  return [...(await store.members(setAsideGroup(run))).keys()];
}

export async function dropSetAside(store: SharedStore, run: string, image: string): Promise<void> {
  await store.withdraw(setAsideGroup(run), image);
}

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

function recordOf(run: string): string {
  return `orders:${run}`;
}

export async function readRunOrders(store: SharedStore, run: string): Promise<RunOrders> {
  const fields = await store.getFields(recordOf(run));
  return { cancel: fields['cancel'] === '1', retryAll: fields['retryAll'] === '1' };
}

export async function orderRun(store: SharedStore, run: string, order: keyof RunOrders): Promise<void> {
  await store.setFields(recordOf(run), { [order]: '1' });
}

/** Takes an order away: it was read, carried out, or given up. */
export async function dropRunOrder(store: SharedStore, run: string, order: keyof RunOrders): Promise<void> {
  await store.setFields(recordOf(run), { [order]: null });
}
