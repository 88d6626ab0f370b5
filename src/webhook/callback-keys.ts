import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { UsageError } from '../shared/errors.js';
import type { SharedStore } from '../shared/queue/store.js';

const REF = /^[\w-]{38}$/;
const NONCE_LENGTH = 22;
const TAG_LENGTH = 16;
const SEGMENT_LENGTH = 32;
const SHORTEST_SECRET = 16;

/** @throws {UsageError} for a secret that could be guessed */
export function checkSecret(secret: string, source: string): string {
  if (secret.length >= SHORTEST_SECRET) return secret;
  throw new UsageError(`${source}: expected a secret of at least ${SHORTEST_SECRET} characters`);
}

/**
 * The keys of an account's callbacks. Without a secret of the user's a random one is kept in the queue's store, so
 * that workers and receivers agree without a file.
 */
export async function callbackKeys(
  store: SharedStore,
  queueName: string,
  secret: string | undefined,
): Promise<CallbackKeys> {
  const random = () => randomBytes(24).toString('base64url');
  const agreed = secret ?? (await store.setFieldOnce(`webhook:${queueName}`, 'secret', random()));
  return new CallbackKeys(agreed, queueName);
}

/**
 * What makes callbacks unguessable, all of it from one secret: the path that the API is told, and the refs. A ref is a
 * nonce and a tag of it: a forged one is seen for what it is without asking anybody, and fills no place kept for ours.
 */
export class CallbackKeys {
  /** The path segment that the API's calls have to name. */
  readonly segment: string;

  /** @param scope what the secret is used for, such as an account's queue: another scope has other paths and refs */
  constructor(
    private readonly secret: string,
    private readonly scope: string,
  ) {
    this.segment = this.#hmac('path', '').slice(0, SEGMENT_LENGTH);
  }

  /** The ref of one submit: the same for the same seed, in every process that has the secret. */
  refOf(seed: string): string {
    const nonce = createHash('sha256').update(seed).digest('base64url').slice(0, NONCE_LENGTH);
    return nonce + this.#tagOf(nonce);
  }

  isOwnRef(ref: string): boolean {
    if (!REF.test(ref)) return false;
    return sameText(ref.slice(NONCE_LENGTH), this.#tagOf(ref.slice(0, NONCE_LENGTH)));
  }

  isOwnSegment(segment: string): boolean {
    return sameText(segment, this.segment);
  }

  /**
   * The URL that the API is told for one submit. The ref is in it as well, for APIs that give no ref back.
   * @param base the public URL that leads to the receiver
   */
  callbackUrl(base: string, ref: string): string {
    return `${this.callbackBase(base)}/${ref}`;
  }

  /** The same without a ref: deliveries that come here are told apart by what they say. */
  callbackBase(base: string): string {
    const url = new URL(base);
    url.pathname = `${url.pathname.replace(/\/+$/, '')}/${this.segment}`;
    return url.href;
  }

  #tagOf(nonce: string): string {
    return this.#hmac('ref', nonce).slice(0, TAG_LENGTH);
  }

  #hmac(purpose: string, text: string): string {
    return createHmac('sha256', this.secret)
      .update(JSON.stringify([purpose, this.scope, text]))
      .digest('base64url');
  }
}

/** Compares in a time that tells nothing of where the texts differ. */
function sameText(given: string, expected: string): boolean {
  const hash = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(given), hash(expected));
}
