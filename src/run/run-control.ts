import { setMaxListeners } from 'node:events';
import { messageOf } from '../shared/errors.js';
import type { RunStop } from './receipt.js';

/** Ends a run before its time; the first reason counts. */
export class RunControl {
  readonly #controller = new AbortController();
  #stop: RunStop | undefined;

  /** @param interrupt aborts when a person or the system wants the run to end */
  constructor(interrupt: AbortSignal | undefined) {
    // Every queue operation under way listens.
    setMaxListeners(0, this.signal);
    const onInterrupt = () => this.stop({ kind: 'interrupted', reason: 'interrupted' });
    if (interrupt?.aborted === true) onInterrupt();
    else interrupt?.addEventListener('abort', onInterrupt, { once: true });
    this.signal.addEventListener('abort', () => interrupt?.removeEventListener('abort', onInterrupt));
  }

  /** Aborts when the run is to end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why the run ends before its time; undefined while it does not. */
  get reason(): RunStop | undefined {
    return this.#stop;
  }

  stop(stop: RunStop): void {
    this.#stop ??= stop;
    this.#controller.abort();
  }

  /** Something failed that the run cannot do without. */
  fail(error: unknown): void {
    this.stop({ kind: 'fatal', reason: messageOf(error) });
  }

  /** The manifest cannot be read on: what is in flight is still finished. */
  failAfterwards(error: unknown): void {
    this.#stop ??= { kind: 'fatal', reason: messageOf(error) };
  }
}
