import type { Outcome } from '../shared/outcome.js';

const LAST_OUTCOMES = 50;

/** Failures that speak of the manifest or of the host of its images, not of the API. */
function blamesManifest(outcome: Outcome): boolean {
  return outcome.status === 'failed' && ['rejected', 'incomplete', 'deadline'].includes(outcome.code);
}

/**
 * Watches the last 50 outcomes (`--stop-failing`).
 *
 * A refusal comes at once and prompts a minute later, so while images are going into flight the outcomes are nearly all
 * refusals, however few of the images are bad. By as many images as are more in flight now than when the first of the
 * 50 outcomes came, they are not the whole story: those count as good until they have ended.
 */
export class FailingManifest {
  readonly #last: { readonly failed: boolean; readonly inFlight: number }[] = [];
  #inFlight = 0;
  #lastReason = '';

  /** @param percent of the last 50 outcomes that may be such failures; 100 turns it off */
  constructor(private readonly percent: number) {}

  /** For people: what was too much, and why the last image failed. */
  get reason(): string {
    return `more of the last ${LAST_OUTCOMES} images failed than --stop-failing allows (the last one: ${this.#lastReason})`;
  }

  add(outcome: Outcome): void {
    if (outcome.status === 'failed') this.#lastReason = outcome.reason;
    this.#last.push({ failed: blamesManifest(outcome), inFlight: this.#inFlight });
    if (this.#last.length > LAST_OUTCOMES) this.#last.shift();
  }

  /**
   * To be asked regularly.
   * @param inFlight images that are in flight now
   * @returns true when more than the allowed part has failed
   */
  isFailing(inFlight: number): boolean {
    this.#inFlight = inFlight;
    const [first] = this.#last;
    if (first === undefined || this.#last.length < LAST_OUTCOMES) return false;
    const failed = this.#last.filter((outcome) => outcome.failed).length;
    const promising = Math.max(0, inFlight - first.inFlight);
    return failed > (this.percent / 100) * (LAST_OUTCOMES + promising);
  }
}
