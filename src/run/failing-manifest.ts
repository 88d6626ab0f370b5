import type { Outcome } from '../shared/outcome.js';

const LAST_OUTCOMES = 50;

/** Failures that speak of the manifest or of the host of its images, not of the API. */
function blamesManifest(outcome: Outcome): boolean {
  return outcome.status === 'failed' && ['rejected', 'incomplete', 'deadline'].includes(outcome.code);
}

/** Watches the last 50 outcomes (`--stop-failing`). */
export class FailingManifest {
  readonly #last: boolean[] = [];
  #next = 0;

  /** @param percent of the last 50 outcomes that may be such failures; 100 turns it off */
  constructor(private readonly percent: number) {}

  /** @returns true when more than the allowed part of the last 50 outcomes has failed */
  add(outcome: Outcome): boolean {
    this.#last[this.#next] = blamesManifest(outcome);
    this.#next = (this.#next + 1) % LAST_OUTCOMES;
    if (this.#last.length < LAST_OUTCOMES) return false;
    const failing = this.#last.filter(Boolean).length;
    return failing > (this.percent / 100) * LAST_OUTCOMES;
  }
}
