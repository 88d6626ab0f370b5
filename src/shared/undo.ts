/** What has to be undone when a piece of work ends, whichever way: last in, first out, once. */
export class UndoStack {
  #undos: (() => Promise<void> | void)[] = [];

  defer(undo: () => Promise<void> | void): void {
    this.#undos.push(undo);
  }

  /**
   * Undoes everything; one that fails does not keep the others from being undone.
   * @throws the first failure, after all have run
   */
  async release(): Promise<void> {
    const failures: unknown[] = [];
    for (let undo = this.#undos.pop(); undo !== undefined; undo = this.#undos.pop()) {
      try {
        await undo();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0)
      throw failures[0] instanceof Error ? failures[0] : new Error(String(failures[0]));
  }
}
