import { dialectFor } from '../describe-api/dialects/index.js';
import { UsageError, isSystemError, messageOf } from '../shared/errors.js';
import { FAILURE_KINDS, type FailureShares } from '../simulator/options.js';
import { type Simulator, startSimulator } from '../simulator/simulator.js';
import type { OptionsOf } from './options.js';
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
  const { fail, seed, journal } = options;
  try {
    return await startSimulator({
      ...{ port, latencyMs: latency, latencySpread: spread, rateLimit, maxInFlight, retryAfter },
      ...{ token: requireToken, seed, journal },
      failures: fail === undefined ? undefined : parseFailures(fail),
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
