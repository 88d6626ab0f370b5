import { hostname } from 'node:os';
import { isAlive } from './process-identity.js';
import type { SharedStore } from './queue/store.js';

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
export async function isDeadHere(owner: string): Promise<boolean> {
  const [host = '', pid] = owner.split('/');
  return host === hostname() && !(await isAlive({ host, pid: Number(pid), startTime: null, boot: null }));
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

/** The images of a run that were set aside. */
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
