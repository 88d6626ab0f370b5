import { setMaxListeners } from 'node:events';
import { messageOf } from '../shared/errors.js';
import type { RunStop } from './receipt.js';

/**
 * Ends a run before its time; the first reason counts.
 *
 *   going on --windDown--> winding down: nothing new is submitted, what is in flight is finished
 *   either   --stop, fail--> ending: everything is put where the next run finds it
 */
export class RunControl {
  readonly #controller = new AbortController();
  readonly #windDown = new AbortController();
  #stop: RunStop | undefined;

  /** @param interrupt aborts when a person or the system wants the run to end */
  constructor(interrupt: AbortSignal | undefined) {
    // Every queue operation under way listens.
    setMaxListeners(0, this.signal, this.noMore);
    const onInterrupt = () => this.stop({ kind: 'interrupted', reason: 'interrupted' });
    if (interrupt?.aborted === true) onInterrupt();
    else interrupt?.addEventListener('abort', onInterrupt, { once: true });
    this.signal.addEventListener('abort', () => interrupt?.removeEventListener('abort', onInterrupt));
  }

  /** Aborts when the run is to end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Aborts when nothing more is to be taken on. */
  get noMore(): AbortSignal {
    return this.#windDown.signal;
  }

  get isWindingDown(): boolean {
    return this.noMore.aborted && !this.signal.aborted;
  }

  /** Why the run ends before its time; undefined while it does not. */
  get reason(): RunStop | undefined {
    return this.#stop;
  }

  stop(stop: RunStop): void {
    this.#stop ??= stop;
    this.#windDown.abort();
    this.#controller.abort();
  }

  /** Nothing more is submitted; the run ends when what is in flight has come home. */
  windDown(stop: RunStop): void {
    this.#stop ??= stop;
    this.#windDown.abort();
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
