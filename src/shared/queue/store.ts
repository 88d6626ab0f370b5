import type { PermitRequest, Permits } from './limiter.js';

/**
 * Small values that all processes of a queue share, beside the jobs. Each call is one round trip and atomic.
 *
 * On Redis the time is the server's, so that processes with different clocks agree. On the embedded queue
 * there is one process: what is not durable is kept in its memory.
 */
export interface SharedStore {
  /** Takes permits of the limiter `name`, over all processes; those that are near. */
  takePermits(name: string, request: PermitRequest): Promise<Permits>;
  /** No permits of `name` for `ms` from now; never shortens a hold. @returns for how many milliseconds there are none */
  holdPermits(name: string, ms: number): Promise<number>;

  /** The fields of a durable record; empty when there is none. */
  getFields(name: string): Promise<Record<string, string>>;
  /** Sets a field that is not there yet. @returns what the field holds now, whoever set it */
  setFieldOnce(name: string, field: string, value: string): Promise<string>;
  /** Sets fields of a durable record, all or none; null removes one. */
  setFields(name: string, fields: Record<string, string | null>): Promise<void>;
  /**
   * Adds to fields of a durable record that hold numbers, all or none; one that is not there counts as 0.
   * @returns what these fields hold now
   */
  addToFields(name: string, deltas: Readonly<Record<string, number>>): Promise<Record<string, number>>;

  /** Removes what a queue without jobs leaves behind: its settings and events. Without effect while it has one. */
  forgetQueue(queueName: string): Promise<void>;

  /** Takes or renews an exclusive lease: true when `owner` has it now, for `ttlMs`. */
  lease(name: string, owner: string, ttlMs: number): Promise<boolean>;
  leaseOwner(name: string): Promise<string | undefined>;
  /** Gives a lease back; without effect when another owner has it. */
  release(name: string, owner: string): Promise<void>;

  /** Announces a member of a group, with a small text of its own, for `ttlMs`. */
  announce(group: string, member: string, text: string, ttlMs: number): Promise<void>;
  withdraw(group: string, member: string): Promise<void>;
  /** The members whose time is not over, and will not be in `spareMs`, with their texts. */
  members(group: string, spareMs?: number): Promise<Map<string, string>>;

  /**
   * Puts a message into a mailbox, in place of an earlier one of the same name, and tells whoever listens, in whatever
   * process. A mailbox holds messages for a while and no more than so many; the oldest go first.
   * @param name without spaces
   */
  putMessage(mailbox: string, name: string, text: string, bounds: MailboxBounds): Promise<void>;
  /** The messages of these names that are in the mailbox. */
  messages(mailbox: string, names: readonly string[]): Promise<Map<string, string>>;
  /** Listens to a mailbox from when this resolves, through outages. @returns its end */
  listen(mailbox: string, listener: MailboxListener): Promise<() => void>;
}

export interface MailboxBounds {
  readonly ttlMs: number;
  readonly max: number;
}

export interface MailboxListener {
  /** A message has come. */
  came(name: string, text: string): void;
  /** Some may have come unheard, while the queue was away. */
  missedSome(): void;
}
