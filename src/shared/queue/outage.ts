import { sleep, unlessAborted } from '../waiting.js';

/**
 * Called once when the queue goes down and once when it is up again; once when it is gone for good (`lost`); and with something
 * else that went wrong with it (`notice`). The latter two are whole sentences.
 */
export type TroubleListener = (state: 'down' | 'up' | 'lost' | 'notice', reason: string) => void;

/** The same for people, on one line. */
export function troubleText(...[state, reason]: Parameters<TroubleListener>): string {
  switch (state) {
    case 'down':
      return `waiting for the queue: ${reason}`;
    case 'up':
      return 'the queue is back';
    case 'lost':
    case 'notice':
      return reason;
  }
}

/** What may be away for a while. */
export interface Probed {
  /** Why an operation failed, for people, if that passes by itself (server away, out of memory); else undefined. */
  classify(error: unknown): string | undefined;
  /** Writes something that leaves nothing behind. @throws when the queue takes nothing; may wait while it is away */
  probe(): Promise<void>;
}

/** Shorter outages are nobody's business: a server that is busy with its disk may take a second to answer. */
const GRACE_MS = 2000;
const RETRY_MS = 500;

/**
 * Whether the queue is there.
 *
 *   up    --a failure of a passing kind-->  down   (reported after a grace period, if it lasts)
 *   down  --a probe succeeds-->             up     (reported if `down` was)
 */
export class Outage {
  readonly #listeners: TroubleListener[] = [];
  readonly #closed = new AbortController();
  #watching = false;
  #isReported = false;
  #isLost = false;

  constructor(private readonly storage: Probed) {}

  on(listener: TroubleListener): void {
    this.#listeners.push(listener);
  }

  /** Takes note of a failure: true when it is of a kind that passes, so that trying again helps. */
  note(error: unknown): boolean {
    const reason = this.#isLost ? undefined : this.storage.classify(error);
    if (reason === undefined || this.#closed.signal.aborted) return false;
    if (!this.#watching) void this.#watch(reason);
    return true;
  }

  notice(text: string): void {
    this.#report('notice', text);
  }

  /** It does not come back: nothing is tried again. */
  lose(reason: string): void {
    this.#isLost = true;
    this.#report('lost', reason);
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** Whether a failure was noted, and no probe has succeeded since. */
  get isDown(): boolean {
    return this.#watching || this.#isLost;
  }

  /** Ends the probing; nothing is reported any more. */
  close(): void {
    this.#closed.abort();
  }

  async #watch(reason: string): Promise<void> {
    this.#watching = true;
    const grace = setTimeout(() => {
      this.#isReported = true;
      this.#report('down', reason);
    }, GRACE_MS);
    while (!this.#closed.signal.aborted && (await this.#fails())) {
      await sleep(RETRY_MS, this.#closed.signal);
    }
    clearTimeout(grace);
    this.#watching = false;
    if (this.#isReported) this.#report('up', reason);
    this.#isReported = false;
  }

  async #fails(): Promise<boolean> {
    try {
      await this.storage.probe();
      return false;
    } catch (error) {
      return this.storage.classify(error) !== undefined;
    }
  }

  #report(...[state, reason]: Parameters<TroubleListener>): void {
    if (this.#closed.signal.aborted) return;
    for (const listener of this.#listeners) listener(state, reason);
  }
}

interface HasOutage {
  readonly outage: Outage;
}

/** What is known to be away is given this long all the same: it may just have come back. */
const AWAY_MS = 300;

/**
 * Aborts when something that shuts down is to wait no longer for the queue: after `ms`, or a moment where the queue is away,
 * so that a person who ends a process does not wait for a server that is not there.
 */
export function shutdownTimeout({ outage }: HasOutage, ms: number): AbortSignal {
  return AbortSignal.timeout(outage.isDown ? Math.min(ms, AWAY_MS) : ms);
}

/** Waits so long for a queue operation of a shutdown. @param onError gets why it failed, or that it took too long */
export async function atShutdown(
  connection: HasOutage,
  ms: number,
  operation: Promise<unknown>,
  onError: (error: unknown) => void,
): Promise<void> {
  // A signal's own timer does not keep the process alive, and what comes after this would never be done.
  const alive = setTimeout(() => undefined, ms);
  await unlessAborted(operation, shutdownTimeout(connection, ms)).catch(onError);
  clearTimeout(alive);
}

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 3000;

/**
 * Runs a queue operation until it succeeds, however long the queue is away, out of memory, loading or
 * read-only. The outage's listeners hear of each such time once.
 *
 * An operation may have been executed although it failed (the answer was lost): it has to be one that can
 * be done twice.
 * @param signal ends the waiting, for an operation under way too
 * @throws the operation's own error when trying again cannot help; the signal's reason when it aborts
 */
export async function retryUntilUp<T>(
  { outage }: HasOutage,
  operation: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    signal?.throwIfAborted();
    try {
      return await unlessAborted(operation(), signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (!outage.note(error)) throw error;
    }
    await sleep(pauseMs, signal);
  }
}

const LOOK_EVERY_MS = 100;

/**
 * Waits for something that may never be done, as long as that is worth while.
 * @param isHopeful whether to go on after so many milliseconds; asked ten times a second
 * @returns whether it is done
 */
export async function isDoneInTime(
  work: Promise<unknown>,
  isHopeful: (waitedMs: number) => boolean,
): Promise<boolean> {
  const isOver = new AbortController();
  const startedAt = performance.now();
  const done = work.then(() => true).finally(() => isOver.abort());
  done.catch(() => undefined);
  while (isHopeful(performance.now() - startedAt)) {
    if (!(await sleep(LOOK_EVERY_MS, isOver.signal))) return done;
  }
  return false;
}
