import { z } from 'zod';
import { type Logger, debugError } from '../shared/log.js';
import { parseJson } from '../shared/parse-json.js';
import type { SharedStore } from '../shared/queue/store.js';

/*
 * Deliveries on their way from a receiver to the worker that waits for one. Each is published to whoever listens, and kept in
 * a mailbox for a while: some come early, or while no worker is there. Its prompts are not kept: the worker asks the API.
 */

/** What a delivery claims to be about; nothing of it is certain. */
export interface DeliveryClaim {
  /** A ref that was made here, see `CallbackKeys`. */
  readonly ref: string | undefined;
  readonly messageId: string | undefined;
  /** It says that its message is still worked on: there is nothing to ask for yet. */
  readonly isWorking?: true | undefined;
}

/** No service has others in an id, and not every store can hold control characters and lone surrogates. */
const ID = /^[^\p{Cc}\p{Cs}]{1,512}$/u;

const idSchema = z
  .union([z.string(), z.int().nonnegative().transform(String)])
  .pipe(z.string().trim().regex(ID))
  .optional()
  .catch(undefined);

/** Where the services of this family put the two facts that matter; all else is read from the API. */
const claimSchema = z.object({
  ref: idSchema,
  originatingMessageId: idSchema,
  messageId: idSchema,
  job_id: idSchema,
  jobId: idSchema,
  id: idSchema,
});

const bodySchema = z.intersection(
  claimSchema,
  z.object({
    // The words of `mj`, which calls at every change; the others call when a message is done.
    status: z.enum(['NOT_START', 'SUBMITTED', 'IN_PROGRESS', 'MODAL', '']).optional().catch(undefined),
    response: claimSchema.optional().catch(undefined),
    data: claimSchema.optional().catch(undefined),
  }),
);

/** What a body says that it is about; undefined when it is no JSON object. */
export function readClaim(body: string): DeliveryClaim | undefined {
  const json = parseJson(body);
  const claim = bodySchema.safeParse(json);
  if (!claim.success || Array.isArray(json)) return undefined;
  const { status, response, data } = claim.data;
  const parts = [claim.data, response, data];
  const ids = parts.map(
    (part) => part?.originatingMessageId ?? part?.messageId ?? part?.job_id ?? part?.jobId ?? part?.id,
  );
  return {
    ...(status !== undefined && { isWorking: true }),
    ref: parts.map((part) => part?.ref).find((ref) => ref !== undefined),
    messageId: ids.find((id) => id !== undefined),
  };
}

/** How many deliveries are kept, and for how long. */
const DELIVERY_BOUNDS = { ttlMs: 60 * 60_000, max: 10_000 } as const;

/** Those that name only a message have a mailbox of their own: whoever fills it takes no place of those that name a ref of ours. */
function mailboxesOf(queueName: string) {
  const refs = `deliveries:${queueName}`;
  return { refs, messages: `${refs}:unnamed` };
}

/** A message's name in its mailbox: without spaces. */
function messageName(messageId: string): string {
  return encodeURIComponent(messageId);
}

/** Publishes a delivery to whoever waits for it, now or later. */
export async function putDelivery(
  store: SharedStore,
  queueName: string,
  { ref, messageId }: DeliveryClaim,
): Promise<void> {
  const { refs, messages } = mailboxesOf(queueName);
  if (ref !== undefined) await store.putMessage(refs, ref, messageId ?? '', DELIVERY_BOUNDS);
  else if (messageId !== undefined)
    await store.putMessage(messages, messageName(messageId), messageId, DELIVERY_BOUNDS);
}

/** Whether a delivery has come for one submit. */
export class DeliveryWatch {
  #came = new AbortController();
  /** The message that the newest delivery named, if any. */
  messageId: string | undefined;
  readonly #names: string[] = [];

  /** @param watches of one process, by refs and by messages' names; the newest of each */
  constructor(private readonly watches = new Map<string, DeliveryWatch>()) {}

  /** It is for deliveries with this ref. */
  forRef(ref: string): this {
    this.#names.push(ref);
    this.watches.set(ref, this);
    return this;
  }

  /** It is for deliveries of this message as well, which came without a ref. */
  alsoFor(messageId: string): void {
    // Whoever gives a message the name of a ref could as well deliver for that.
    this.forRef(messageName(messageId));
  }

  end(): void {
    for (const name of this.#names) {
      // Unless a newer processing of the same submit watches by now.
      if (this.watches.get(name) === this) this.watches.delete(name);
    }
  }

  /** Aborts when a delivery comes; has aborted while one that came is not taken. */
  get came(): AbortSignal {
    return this.#came.signal;
  }

  /** A delivery has come. @param messageId empty where it named none */
  notify(messageId: string): void {
    if (messageId !== '') this.messageId = messageId;
    this.#came.abort();
  }

  /** Takes what has come, and waits for the next. @returns whether anything had */
  take(): boolean {
    if (!this.#came.signal.aborted) return false;
    this.#came = new AbortController();
    return true;
  }
}

/** The deliveries that one process waits for, by whichever receivers they come. */
export class DeliveryInbox {
  readonly #watches = new Map<string, DeliveryWatch>();
  readonly #ends: (() => void)[] = [];

  private constructor(
    private readonly store: SharedStore,
    private readonly mailboxes: ReturnType<typeof mailboxesOf>,
  ) {}

  /** Opens the inbox, which is notified of what comes from now on. */
  static async open(store: SharedStore, queueName: string, logger: Logger): Promise<DeliveryInbox> {
    const inbox = new DeliveryInbox(store, mailboxesOf(queueName));
    const onError = debugError(logger, 'deliveries were not looked up: polls find them');
    for (const mailbox of Object.values(inbox.mailboxes)) {
      const missedSome = () => void inbox.#lookUp(mailbox, [...inbox.#watches.keys()]).catch(onError);
      const came = (name: string, messageId: string) => inbox.#watches.get(name)?.notify(messageId);
      inbox.#ends.push(await store.listen(mailbox, { came, missedSome }));
    }
    return inbox;
  }

  /** Watches for deliveries with this ref that come from now on. */
  watch(ref: string): DeliveryWatch {
    return new DeliveryWatch(this.#watches).forRef(ref);
  }

  /** Notifies the watches of those refs whose deliveries came before. */
  lookUp(refs: readonly string[]): Promise<void> {
    return this.#lookUp(this.mailboxes.refs, refs);
  }

  async #lookUp(mailbox: string, names: readonly string[]): Promise<void> {
    const found = await this.store.messages(mailbox, names);
    for (const [name, messageId] of found) this.#watches.get(name)?.notify(messageId);
  }

  close(): Promise<void> {
    for (const end of this.#ends) end();
    return Promise.resolve();
  }
}
