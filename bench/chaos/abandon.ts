const kills = new Set<() => void>();

/**
 * Registers what ends a process that this one started, in case this one ends early.
 * @returns forgets it
 */
export function onAbandon(kill: () => void): () => void {
  kills.add(kill);
  return () => kills.delete(kill);
}

/** Ends everything at once; to be called when this process ends. */
export function abandonAll(): void {
  for (const kill of kills) kill();
}
