const undos = new Set<() => void>();

/**
 * Registers what ends a process that this one started, or removes its files, in case this one ends early.
 * @returns forgets it
 */
export function onAbandon(undo: () => void): () => void {
  undos.add(undo);
  return () => undos.delete(undo);
}

/** Undoes everything at once, last in, first out; to be called when this process ends. */
export function abandonAll(): void {
  for (const undo of [...undos].reverse()) undo();
}
