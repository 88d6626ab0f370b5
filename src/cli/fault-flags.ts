import { parseRate } from '../shared/durations.js';
import { UsageError } from '../shared/errors.js';
import {
  DELIVERY_FAULTS,
  FAILURE_KINDS,
  type FailureShares,
  type WebhookFaults,
} from '../simulator/options.js';

/** Reads `reject=0.1,http500=0.05`: how often to fail in which way. @throws {UsageError} */
export function parseFailures(text: string | undefined): FailureShares | undefined {
  if (text === undefined) return undefined;
  return Object.fromEntries(text.split(',').map((part) => readShare(part, '--fail', FAILURE_KINDS, '')));
}

/** Reads `late=0.1,lost=0.2,forged=200/s`: what goes wrong with deliveries, and how often. @throws {UsageError} */
export function parseWebhookFaults(text: string | undefined): WebhookFaults | undefined {
  if (text === undefined) return undefined;
  const isForged = (part: string) => part.split('=')[0]?.trim() === 'forged';
  const parts = text.split(',');
  const rates = parts.filter(isForged).map((part) => part.split('=')[1] ?? '');
  const shares = parts
    .filter((part) => !isForged(part))
    .map((part) => readShare(part, '--webhooks', DELIVERY_FAULTS, ', or forged=<n/duration>'));
  // One delivery goes wrong in one way.
  if (shares.reduce((sum, [, share]) => sum + share, 0) > 1 + Number.EPSILON)
    throw new UsageError(`--webhooks ${text}: the shares add up to more than 1: make them smaller`);
  const forged = rates.map((rate) => parseRate(rate, '--webhooks forged')).at(-1);
  return { ...Object.fromEntries(shares), forged };
}

function readShare<Kind extends string>(
  part: string,
  flag: string,
  kinds: readonly Kind[],
  orElse: string,
): readonly [Kind, number] {
  const [name = '', value = ''] = part.split('=');
  const kind = kinds.find((known) => known === name.trim());
  const share = Number(value);
  if (kind !== undefined && value !== '' && share >= 0 && share <= 1) return [kind, share];
  throw new UsageError(
    `${flag} ${part}: expected <kind>=<0 to 1>, with a kind of ${kinds.join(', ')}${orElse}`,
  );
}
