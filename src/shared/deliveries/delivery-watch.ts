/** Whether a delivery has come for one submit. */
export class DeliveryWatch {
  #bell = new AbortController();
  #messageId: string | undefined;

  /** @param end stops the watching */
  constructor(readonly end: () => void) {}

  /** Aborts when a delivery comes; has aborted while one that came is not taken. */
  get bell(): AbortSignal {
    return this.#bell.signal;
  }

  /** Which message the newest delivery is about, if it told so. */
  get messageId(): string | undefined {
    return this.#messageId;
  }

  /** A delivery has come. */
  ring(messageId: string | undefined): void {
    this.#messageId = messageId ?? this.#messageId;
    this.#bell.abort();
  }

  /** Takes what has come: the bell is silent until the next. @returns whether anything had */
  take(): boolean {
    if (!this.#bell.signal.aborted) return false;
    this.#bell = new AbortController();
    return true;
  }
}
