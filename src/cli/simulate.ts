import { dialectFor } from '../describe-api/dialects/index.js';
import { UsageError, isSystemError, messageOf } from '../shared/errors.js';
import { FAILURE_KINDS, type FailureShares } from '../simulator/options.js';
import { startSimulator } from '../simulator/simulator.js';
import type { OptionsOf } from './options.js';
import { listenForSignals, untilAborted } from './process.js';

/** `bulk-describe simulate`: prints its base URL, and answers until it is stopped. @returns 0 */
export async function simulate(options: OptionsOf<'simulate'>): Promise<number> {
  const { port, latency, spread, rateLimit, maxInFlight, retryAfter, requireToken } = options;
  const { fail, seed, journal } = options;
  const dialect = dialectFor({ dialect: options.dialect });
  const { signal } = listenForSignals();
  const simulator = await startSimulator({
    ...{ port, latencyMs: latency, latencySpread: spread, rateLimit, maxInFlight, retryAfter },
    ...{ token: requireToken, seed, journal },
    failures: fail === undefined ? undefined : parseFailures(fail),
  }).catch((error: unknown) => {
    if (!isSystemError(error)) throw error;
    if (error.code !== 'EADDRINUSE') {
      throw new UsageError(`the simulator cannot be started: ${messageOf(error)}`);
    }
    throw new UsageError(`--port ${port ?? ''} is in use: name another, or leave it away for a free one`);
  });
  process.stdout.write(`${simulator.urlOf(dialect.name)}\n`);
  await untilAborted(signal);
  await simulator.close();
  return 0;
}

/** Reads `reject=0.1,http500=0.05`: how often to fail in which way. @throws {UsageError} */
function parseFailures(text: string): FailureShares {
  return Object.fromEntries(
    text.split(',').map((part) => {
      const [name = '', value = ''] = part.split('=');
      const kind = FAILURE_KINDS.find((known) => known === name.trim());
      const share = Number(value);
      if (kind !== undefined && value !== '' && share >= 0 && share <= 1) return [kind, share];
      const kinds = FAILURE_KINDS.join(', ');
      throw new UsageError(`--fail ${part}: expected <kind>=<0 to 1>, with a kind of ${kinds}`);
    }),
  );
}
