import { messageOf } from '../errors.js';

/** What BullMQ says of a job that is not its worker's any more, and what that means to people. */
const KINDS = [
  {
    pattern: /^Missing key for job /,
    text:
      'jobs have gone from the queue (was Redis emptied?): what is in flight is still finished, the rest fails as ' +
      '`lost` in about a minute, and the same command takes it up',
  },
  {
    pattern:
      /^(Missing lock for job |Lock mismatch for job |could not renew lock for job |Job \S+ is not in the active state)/,
    text:
      'this process has lost hold of jobs that it works on (was Redis emptied, or this machine asleep?): other workers ' +
      'may take them up, and do not submit again what has a message',
  },
] as const;

/** A minute without any: then it has happened again. */
const QUIET_MS = 60_000;

/** Tells people once of jobs that vanish, however many there are: a Redis that was emptied loses all of them. */
export class VanishedJobs {
  readonly #lastAt = new Map<string, number>();

  constructor(
    private readonly tell: (text: string) => void,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Takes note of an error: true when it is about such a job, and told or not worth telling again. */
  note(error: unknown): boolean {
    const kind = KINDS.find(({ pattern }) => pattern.test(messageOf(error)));
    if (kind === undefined) return false;
    const now = this.now();
    const lastAt = this.#lastAt.get(kind.text) ?? -Infinity;
    this.#lastAt.set(kind.text, now);
    if (now - lastAt > QUIET_MS) this.tell(kind.text);
    return true;
  }
}
