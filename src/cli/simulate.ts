import { dialectFor } from '../describe-api/dialects/index.js';
import { parseRate } from '../shared/limits.js';
import { UsageError, isSystemError, messageOf } from '../shared/errors.js';
import {
  DELIVERY_FAULTS,
  FAILURE_KINDS,
  type FailureShares,
  SHAPES,
  type WebhookFaults,
} from '../simulator/options.js';
import { type Simulator, startSimulator } from '../simulator/simulator.js';
import type { OptionsOf } from './options.js';
import { oneOf } from './parse.js';
import { listenForSignals, untilAborted } from './process.js';

/** `bulk-describe simulate`: prints its base URL, and answers until it is stopped. @returns 0 */
export async function simulate(options: OptionsOf<'simulate'>): Promise<number> {
  const dialect = dialectFor({ dialect: options.dialect });
  const signals = listenForSignals();
  try {
    const simulator = await start(options);
    process.stdout.write(`${simulator.urlOf(dialect.name)}\n`);
    await untilAborted(signals.signal);
    await simulator.close();
    return 0;
  } finally {
    signals.dispose();
  }
}

/** Starts the simulator; a port or journal that cannot be had is the user's to mend. */
async function start(options: OptionsOf<'simulate'>): Promise<Simulator> {
  const { port, latency, spread, rateLimit, maxInFlight, retryAfter, requireToken } = options;
  const { fail, webhooks, shape, seed, journal } = options;
  try {
    return await startSimulator({
      ...{ port, latencyMs: latency, latencySpread: spread, rateLimit, maxInFlight, retryAfter },
      ...{ token: requireToken, seed, journal },
      failures: fail === undefined ? undefined : parseFailures(fail),
      webhooks: webhooks === undefined ? undefined : parseWebhookFaults(webhooks),
      shape: shape === undefined ? undefined : oneOf(SHAPES)(shape, '--shape'),
    });
  } catch (error) {
    if (!isSystemError(error)) throw error;
    if (error.code === 'EADDRINUSE') {
      throw new UsageError(`--port ${port ?? ''} is in use: name another, or leave it away for a free one`);
    }
    throw new UsageError(`the simulator cannot be started: ${messageOf(error)}`);
  }
}

/** Reads `reject=0.1,http500=0.05`: how often to fail in which way. @throws {UsageError} */
function parseFailures(text: string): FailureShares {
  return Object.fromEntries(text.split(',').map((part) => readShare(part, '--fail', FAILURE_KINDS, '')));
}

/** Reads `late=0.1,lost=0.2,forged=200/s`: what goes wrong with deliveries, and how often. @throws {UsageError} */
function parseWebhookFaults(text: string): WebhookFaults {
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
