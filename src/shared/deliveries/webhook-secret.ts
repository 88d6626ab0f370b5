import { randomBytes } from 'node:crypto';
import { UsageError } from '../errors.js';
import type { SharedStore } from '../queue/store.js';
import { CallbackKeys } from './callback-keys.js';

const SHORTEST = 16;

/** @throws {UsageError} for a secret that could be guessed */
export function checkSecret(secret: string, source: string): string {
  if (secret.length >= SHORTEST) return secret;
  throw new UsageError(`${source}: expected a secret of at least ${SHORTEST} characters`);
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
