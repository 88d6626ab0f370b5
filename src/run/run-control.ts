import { setMaxListeners } from 'node:events';
import { formatDuration } from '../shared/limits.js';
import { messageOf } from '../shared/errors.js';
import type { Outcome } from '../shared/jobs.js';
import type { WorkerStatus } from '../shared/published.js';
import type { RunStop } from './run-options.js';

/**
 * Ends a run before its time; the first reason counts.
 *
 *   going on --windDown--> winding down: nothing new is submitted, what is in flight is finished
 *   either   --stop, fail--> ending: everything is put where the next run finds it
 */
export class RunControl {
  readonly #controller = new AbortController();
  readonly #windDown = new AbortController();
  /** Aborts when the run is to end. */
  readonly signal: AbortSignal = this.#controller.signal;
  /** Aborts when nothing more is to be taken on. */
  readonly noMore: AbortSignal = this.#windDown.signal;
  /** Why the run ends before its time; undefined while it does not. */
  reason: RunStop | undefined;

  /** @param interrupt aborts when a person or the system wants the run to end */
  constructor(interrupt: AbortSignal | undefined) {
    // Every queue operation under way listens.
    setMaxListeners(0, this.signal, this.noMore);
    const onInterrupt = () => this.stop({ kind: 'interrupted', reason: 'interrupted' });
    if (interrupt?.aborted === true) onInterrupt();
    else interrupt?.addEventListener('abort', onInterrupt, { once: true });
    this.signal.addEventListener('abort', () => interrupt?.removeEventListener('abort', onInterrupt));
  }

  get isWindingDown(): boolean {
    return this.noMore.aborted && !this.signal.aborted;
  }

  stop(stop: RunStop): void {
    this.windDown(stop);
    this.#controller.abort();
  }

  /** Nothing more is submitted; the run ends when what is in flight has ended. */
  windDown(stop: RunStop): void {
    this.reason ??= stop;
    this.#windDown.abort();
  }

  /** Something failed that the run cannot do without. */
  fail(error: unknown): void {
    // A full disk is not hidden by the Ctrl-C before it.
    if (this.reason?.kind !== 'fatal') this.reason = undefined;
    this.stop({ kind: 'fatal', reason: messageOf(error) });
  }
}

/**
 * Whether the state of an account's workers ends a run: when every one of them has given up, or the API has
 * been down for long for all of them. Without any worker a run waits.
 * @param startedAt when the run began: a worker that had nothing to do has not probed since the last run
 */
export function judgeWorkers(
  workers: readonly WorkerStatus[],
  nowMs: number,
  { downLimitMs, startedAt }: { readonly downLimitMs: number; readonly startedAt: number },
): RunStop | undefined {
  const refused = workers.flatMap(({ state, reason }) =>
    isRefusal(state) ? [{ kind: state, reason: `${REFUSALS[state]}: ${reason}` }] : [],
  );
  const down = workers.filter(({ state }) => state === 'down');
  if (workers.length === 0 || refused.length + down.length < workers.length) return undefined;
  if (down.length === 0) return refused.find(({ kind }) => kind === 'quota') ?? refused[0];
  const since = Math.max(startedAt, ...down.map((worker) => worker.since));
  if (nowMs - since < downLimitMs) return undefined;
  const why = down.map(({ reason }) => reason).find((reason) => reason !== '');
  const text = `the API has not answered for ${formatDuration(nowMs - since)}`;
  return { kind: 'down', reason: why === undefined ? text : `${text}: ${why}` };
}

/** Why workers take no more images, for people. */
const REFUSALS = {
  token: 'the API refuses the token',
  quota: 'the API says that the quota is spent',
  'set-up': 'the API describes nothing',
} as const;

function isRefusal(state: WorkerStatus['state']): state is keyof typeof REFUSALS {
  return state in REFUSALS;
}

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
