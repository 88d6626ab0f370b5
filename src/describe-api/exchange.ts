import type { Dispatcher } from 'undici';

const MAX_BODY_BYTES = 1024 * 1024;

export interface HttpAnswer {
  readonly status: number;
  /** By their names in lower case; the first value of one that comes several times. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
  /** The body went on after what is in `text`. */
  readonly tooLong: boolean;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/**
 * One call over HTTP, as undici tells of it. Two of these are made for each image, so the body is collected as it
 * comes, without a stream around it.
 */
export class Exchange implements Dispatcher.DispatchHandler {
  /** Rejects with undici's error, or with the reason of `end`. */
  readonly answer: Promise<HttpAnswer>;
  #resolve: (answer: HttpAnswer) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #isSent = false;
  #endReason: Error | undefined;
  #status = 0;
  #headers: Headers = {};
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** @param onSent called when the request goes out on its connection, once there is one */
  constructor(private readonly onSent?: () => void) {
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether the request's first byte was about to be written: from then on a submit may be paid. */
  get isSent(): boolean {
    return this.#isSent;
  }

  /** Gives the call up, wherever it is. Nothing is sent any more if it was still waiting for a connection. */
  end(reason: Error): void {
    this.#endReason = reason;
    this.#reject(reason);
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#endReason !== undefined) controller.abort(this.#endReason);
    else this.#setOff();
  }

  #setOff(): void {
    this.#isSent = true;
    this.onSent?.();
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Headers): void {
    // Before 200 it is a word on the way, and the answer is still to come.
    if (status < 200) return;
    this.#status = status;
    this.#headers = headers;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes <= MAX_BODY_BYTES) return;
    this.#settle();
    controller.abort(new Error('the body is too long'));
  }

  onResponseEnd(): void {
    this.#settle();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    // A failing status is an answer by itself, whatever became of the body behind it.
    if (this.#status < 400 || this.#endReason !== undefined) this.#reject(error);
    else
      this.#resolve({ status: this.#status, headers: firstValues(this.#headers), text: '', tooLong: false });
  }

  #settle(): void {
    const text = this.#text();
    const tooLong = this.#bytes > MAX_BODY_BYTES;
    this.#resolve({ status: this.#status, headers: firstValues(this.#headers), text, tooLong });
  }

  #text(): string {
    const [first] = this.#chunks;
    const body = this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks);
    return body.toString('utf8', 0, MAX_BODY_BYTES);
  }
}

function firstValues(headers: Headers): Readonly<Record<string, string | undefined>> {
  const first: Record<string, string | undefined> = {};
  for (const name in headers) {
    const value = headers[name];
    first[name.toLowerCase()] = Array.isArray(value) ? value[0] : value;
  }
  return first;
}
