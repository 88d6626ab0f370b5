import type { PublishedKind } from '../published.js';
import type { SharedStore } from './store.js';

/** See `kind.find`. */
export function find<T>(store: SharedStore, kind: PublishedKind<T>, id: string): Promise<T | undefined> {
  return kind.find(store, id);
}

/** See `kind.listLiving`. */
export function listLiving<T>(
  store: SharedStore,
  kind: { listLiving(store: SharedStore): Promise<T> },
): Promise<T> {
  return kind.listLiving(store);
}
