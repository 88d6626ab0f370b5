import type { Rate } from '../shared/durations.js';
import { type Forgery, type KnownSubmit, forgeDelivery } from './forgery.js';
import type { Random } from './random.js';

/** The newest submits that it lies about: most of them are still in progress. */
const MOST_KNOWN = 100;
const EVERY_MS = 20;
/** What was missed in a longer time than this is not made up for. */
const LONGEST_BURST_MS = 200;

/** Somebody who sends made-up deliveries about the submits that it has seen, at a rate. */
export class Forger {
  private readonly known: KnownSubmit[] = [];
  private timer: NodeJS.Timeout | undefined;
  private lastAt = 0;
  private due = 0;

  constructor(
    private readonly parts: {
      /** How often to lie; undefined for not at all. */
      readonly rate: () => Rate | undefined;
      readonly random: Random;
      readonly send: (forgery: Forgery) => void;
    },
  ) {}

  /** Lets it see a submit. */
  learn(submit: KnownSubmit): void {
    this.known.push(submit);
    if (this.known.length > MOST_KNOWN) this.known.shift();
    if (this.timer !== undefined) return;
    this.lastAt = performance.now();
    this.timer = setInterval(() => this.lie(), EVERY_MS);
  }

  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
  }

  private lie(): void {
    const now = performance.now();
    const passedMs = Math.min(LONGEST_BURST_MS, now - this.lastAt);
    this.lastAt = now;
    const rate = this.parts.rate();
    const [first, ...others] = this.known;
    if (rate === undefined || first === undefined) return;
    for (this.due += (passedMs * rate.count) / rate.perMs; this.due >= 1; this.due--) {
      this.parts.send(forgeDelivery([first, ...others], this.parts.random));
    }
  }
}
