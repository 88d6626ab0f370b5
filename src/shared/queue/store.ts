/**
 * Small values that all processes of a queue share, beside the jobs. Each call is one round trip and atomic.
 *
 * On Redis the time is the server's, so that processes with different clocks agree. On the embedded queue
 * there is one process: what is not durable is kept in its memory.
 */
export interface SharedStore {
  /**
   * Paces calls over all processes: gives the next free slots of `name`, one after the other.
   * @param count at most so many
   */
  takeSlots(name: string, pace: SlotPace, count: number): Promise<GivenSlots>;
  /** Tells that slots were used later than they were, for what the window of slots to come may hold. */
  delaySlots(name: string, window: SlotWindow, late: readonly LateSlot[]): Promise<void>;
  /**
   * Pushes the slots of `name` that are still free to at least `ms` from now; never brings them nearer.
   * @returns in how many milliseconds the next free slot is
   */
  holdSlots(name: string, ms: number): Promise<number>;

  /** The fields of a durable record; empty when there is none. */
  getFields(name: string): Promise<Record<string, string>>;
  /** Sets a field that is not there yet. @returns what the field holds now, whoever set it */
  setFieldOnce(name: string, field: string, value: string): Promise<string>;
  /** Sets fields of a durable record, all or none; null removes one. */
  setFields(name: string, fields: Record<string, string | null>): Promise<void>;
  /** Adds to fields of a durable record that hold numbers, all or none; one that is not there counts as 0. */
  addToFields(name: string, deltas: Readonly<Record<string, number>>): Promise<void>;

  /** Takes or renews an exclusive lease: true when `owner` has it now, for `ttlMs`. */
  lease(name: string, owner: string, ttlMs: number): Promise<boolean>;
  leaseOwner(name: string): Promise<string | undefined>;
  /** Gives a lease back; without effect when another owner has it. */
  release(name: string, owner: string): Promise<void>;

  /** Announces a member of a group, with a small text of its own, for `ttlMs`. */
  announce(group: string, member: string, text: string, ttlMs: number): Promise<void>;
  withdraw(group: string, member: string): Promise<void>;
  /** The members whose time is not over, with their texts. */
  members(group: string): Promise<Map<string, string>>;

  /**
   * Puts a letter into a box, in place of an earlier one of the same name, and tells whoever listens, in whatever
   * process. A box holds letters for a while and no more than so many; the oldest go first.
   * @param name without spaces
   */
  putLetter(box: string, name: string, text: string, bounds: BoxBounds): Promise<void>;
  /** The letters of these names that are in the box. */
  letters(box: string, names: readonly string[]): Promise<Map<string, string>>;
  /** Listens to a box from when this resolves, through outages. @returns its end */
  listen(box: string, listener: BoxListener): Promise<() => Promise<void>>;
}

/** How the slots of a name are spread. */
export interface SlotPace {
  /** Their distance. Without a window a slot that has passed unused is not given any more. */
  readonly intervalMs: number;
  readonly window?: SlotWindow | undefined;
  /** Those further away are not given yet. */
  readonly withinMs?: number | undefined;
}

/** Slots that are made up for follow one another at this part of their distance. */
export const CATCH_UP_DISTANCE = 0.8;

/** What any window of time may hold. With it, slots that were not asked for in time are made up for. */
export interface SlotWindow {
  /** In any `ms` there are at most so many, by when they were used. */
  readonly count: number;
  readonly ms: number;
  /**
   * Slots that passed unused so short a time ago are given after all, a little nearer to each other until all is
   * made up for. After a longer rest none are: there is no burst.
   */
  readonly catchUpMs: number;
}

export interface Slot {
  readonly id: string;
  /** From now on; 0 for now. */
  readonly inMs: number;
}

export interface LateSlot {
  readonly slot: Slot;
  readonly lateMs: number;
}

export interface GivenSlots {
  readonly slots: readonly Slot[];
  /** In how many milliseconds the next one is, where fewer were given than asked for. */
  readonly nextInMs: number;
}

export interface BoxBounds {
  readonly ttlMs: number;
  readonly max: number;
}

export interface BoxListener {
  /** A letter has come. */
  came(name: string, text: string): void;
  /** Some may have come unheard, while the queue was away. */
  missedSome(): void;
}
