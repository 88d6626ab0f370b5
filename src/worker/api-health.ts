import { hostname } from 'node:os';
import type { StopReason } from '../describe-api/attempt-policy.js';
import type { AccountLimits } from '../shared/account-limits.js';
import type { DescribeJobData, ResultJobData } from '../shared/jobs.js';
import type { WorkerStatus } from '../shared/published.js';
import type { JobWorker } from '../shared/queue/connection.js';
import { Notifier, clockAheadMs } from '../shared/waiting.js';

/**
 * What a worker makes of the API's failures, over all its images.
 *
 * up -> down: five failures in a row over different images (or ten over fewer), counted apart for submits
 *   and polls, since one can fail while the other works.
 * down -> up: one answer of the kind that failed, be it a refusal or a 429: the API is there. A submit that
 *   goes through counts for both kinds.
 * While it is down, one image at a time probes; the others wait, and no attempt is used up. Probes are paced by
 * the clock, each twice as long after the one before: one that never comes back is followed by the next.
 */
export class ApiHealth {
  /** The images of the failures since the last answer; enough of them to tell that the API is down. */
  readonly #failed: Record<'submit' | 'poll', string[]> = { submit: [], poll: [] };
  /** Images with refusals that may be those of any image, since the last success, and how many of these say so in words. */
  #suspects = new Set<string>();
  #saidSo = 0;
  /** The newest images that have ended alike. */
  #alike: { readonly reason: string; readonly images: Set<string> } | undefined;
  readonly #worked = new Notifier();
  #hasWorked = false;
  #failure: { readonly reason: string; readonly isUnreachable: boolean } | undefined;
  #downSince: number | undefined;
  #nextProbe: { at: number; intervalMs: number } | undefined;

  /**
   * @param now milliseconds of a clock that does not jump
   * @param onUp the API answers again: nobody needs to wait for the next probe any more
   */
  constructor(
    private readonly now: () => number = () => performance.now(),
    private readonly onUp: () => void = () => undefined,
  ) {}

  /** Since when the API has been down, by `now`; undefined while it is up. */
  get downSince(): number | undefined {
    return this.#downSince;
  }

  get hasWorked(): boolean {
    return this.#hasWorked;
  }

  /** What the newest call failed with, as long as none has been answered since; empty where nothing was said. */
  get failure(): string {
    return this.#failure?.reason ?? '';
  }

  /** Why calls do not reach the API; undefined once one has. */
  get trouble(): string | undefined {
    return this.#failure?.isUnreachable === true ? this.#failure.reason : undefined;
  }

  /**
   * A connection error, page or 5xx at a submit or poll of this image.
   * @param isUnreachable the call did not come as far as the API
   */
  failed(call: 'submit' | 'poll', image: string, reason = '', isUnreachable = false): void {
    this.#failure = { reason, isUnreachable };
    const failed = this.#failed[call];
    if (failed.length < DOWN_FAILURES) failed.push(image);
    if (tellDown(failed)) this.#downSince ??= this.now();
  }

  /** The API answered, with something else than a 5xx and than what was asked for. */
  answered(call: 'submit' | 'poll'): void {
    this.#failed[call] = [];
    this.#failure = undefined;
    if (this.#downSince === undefined || Object.values(this.#failed).some(tellDown)) return;
    this.#downSince = undefined;
    this.#nextProbe = undefined;
    this.onUp();
  }

  succeeded(call: 'submit' | 'poll'): void {
    this.#failed.poll = [];
    if (call === 'submit') {
      this.#suspects.clear();
      this.#saidSo = 0;
      this.#hasWorked = true;
      this.#worked.notify();
    }
    this.answered(call);
  }

  /**
   * Whether a submit may go out now.
   * @returns 0, or how many milliseconds the queue should wait
   */
  submitDelayMs(): number {
    if (this.#downSince === undefined) return 0;
    const now = this.now();
    this.#nextProbe ??= { at: now + FIRST_PROBE_MS, intervalMs: FIRST_PROBE_MS };
    const { at } = this.#nextProbe;
    if (at > now) return at - now;
    const intervalMs = Math.min(LONGEST_PROBE_MS, this.#nextProbe.intervalMs * 2);
    this.#nextProbe = { at: now + intervalMs, intervalMs };
    return 0;
  }

  /**
   * A refusal that may be one of any image: a spent quota, a refused key, a wrong set-up.
   * @param isSaid whether it says so in words
   * @returns true when three different images have met one with no success between, or fewer have met three that say so
   */
  suspected(image: string, isSaid: boolean): boolean {
    this.#suspects.add(image);
    if (isSaid) this.#saidSo++;
    return this.#suspects.size >= ENOUGH_REFUSALS || this.#saidSo >= ENOUGH_REFUSALS;
  }

  /**
   * A refusal of this image, before any was described.
   * @returns true when three different images in a row were refused in the same words: it is not the images
   */
  refused(image: string, reason: string): boolean {
    return this.#areAlike(image, reason) >= ENOUGH_REFUSALS;
  }

  /**
   * An answer that holds no prompts, before any image was described. A model may fail at a few images in its own way.
   * @returns true when the answers for five different images in a row were such
   */
  unreadable(image: string): boolean {
    return this.#areAlike(image, UNREADABLE) >= ENOUGH_UNREADABLE;
  }

  /** @returns for how many different images in a row it was the same */
  #areAlike(image: string, reason: string): number {
    if (this.#alike?.reason !== reason) this.#alike = { reason, images: new Set() };
    return this.#alike.images.add(image).size;
  }

  /** Waits until a submit goes through, but no longer than that. @returns whether one has */
  async waitUntilWorked(ms: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#hasWorked) await this.#worked.waitFor(ms, signal);
    return this.#hasWorked;
  }
}

const FIRST_PROBE_MS = 1000;
const LONGEST_PROBE_MS = 15_000;
const ENOUGH_REFUSALS = 3;
const ENOUGH_UNREADABLE = 5;
const UNREADABLE = 'an answer without prompts';
const DOWN_IMAGES = 5;
const DOWN_FAILURES = 10;

function tellDown(images: readonly string[]): boolean {
  return images.length >= DOWN_FAILURES || new Set(images).size >= DOWN_IMAGES;
}

/** Whether a worker takes images, by the health of its API. */
export class Intake {
  readonly health = new ApiHealth(undefined, () => {
    this.#workingSince = Date.now();
    this.#up.notify();
  });
  readonly #up = new Notifier();
  #workingSince = Date.now();
  #refusal: { state: StopReason; reason: string; since: number } | undefined;

  /**
   * @param worker that takes the images, once it does
   * @param ended aborts when it stops
   * @param onNoMore called when it takes no more images, with that in its status
   */
  constructor(
    private readonly limits: AccountLimits,
    private readonly worker: () => JobWorker<DescribeJobData, ResultJobData> | undefined,
    private readonly ended: AbortSignal,
    private readonly onNoMore: () => Promise<void>,
  ) {}

  get status(): WorkerStatus {
    const about = { host: hostname(), pid: process.pid, share: this.limits.share() };
    if (this.#refusal !== undefined) return { ...about, ...this.#refusal };
    const { downSince, failure, trouble } = this.health;
    if (downSince !== undefined)
      return {
        ...about,
        state: 'down',
        reason: failure,
        since: Math.round(clockAheadMs() + downSince),
        trouble,
      };
    return { ...about, state: 'working', reason: '', since: this.#workingSince, trouble };
  }

  /** Takes no images for a while, or until the API answers; those in flight go on. Other workers may reach it. */
  async rest(ms: number): Promise<void> {
    const worker = this.worker();
    if (worker === undefined || worker.isPaused()) return;
    const rested = this.#up.waitFor(ms, this.ended);
    await worker.pause(true);
    void rested.then(async () => {
      if (this.#refusal === undefined && !this.ended.aborted) await worker.resume();
    });
  }

  /** Takes no more images. */
  async takeNoMore(why: StopReason, reason: string): Promise<void> {
    if (this.#refusal !== undefined) return;
    this.#refusal = { state: why, reason, since: Date.now() };
    await this.worker()?.pause(true);
    await this.onNoMore();
  }
}
