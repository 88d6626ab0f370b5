/** Reserves slots: see `SharedStore.reserveSlot`. */
type Reserve = (intervalMs: number, count: number) => Promise<number>;

/**
 * Makes one reservation of those that are asked for in the same turn of the event loop.
 * @returns reserves one slot, and answers in how many milliseconds it is
 */
export function reserveTogether(reserve: Reserve): (intervalMs: number) => Promise<number> {
  let together: { count: number; readonly first: Promise<number> } | undefined;
  return async (intervalMs) => {
    if (together === undefined) {
      const group = { count: 0, first: Promise.resolve(0) };
      group.first = new Promise((resolve, reject) => {
        setImmediate(() => {
          together = undefined;
          reserve(intervalMs, group.count).then(resolve, reject);
        });
      });
      together = group;
    }
    const place = together.count++;
    return (await together.first) + place * intervalMs;
  };
}
