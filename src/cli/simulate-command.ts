import { dialectFor } from '../describe-api/dialects/index.js';
import { parseDuration, parseRate } from '../shared/durations.js';
import { UsageError, isSystemError, messageOf } from '../shared/errors.js';
import { SHAPES, type Shape } from '../simulator/options.js';
import { type Simulator, startSimulator } from '../simulator/simulator.js';
import { API_FLAGS } from './api-flags.js';
import { parseFailures, parseWebhookFaults } from './fault-flags.js';
import { type FlagTable, parseFlags } from './flags.js';
import { OUTPUT_FLAGS } from './run-flags.js';
import { listenForSignals, untilTold } from './signals.js';

const SIMULATE_FLAGS = {
  port: { takes: 'value' },
  latency: { takes: 'value' },
  spread: { takes: 'value' },
  'rate-limit': { takes: 'value' },
  'max-in-flight': { takes: 'value' },
  'retry-after': { takes: 'value' },
  'require-token': { takes: 'value' },
  fail: { takes: 'value' },
  webhooks: { takes: 'value' },
  shape: { takes: 'value' },
  seed: { takes: 'value' },
  journal: { takes: 'value' },
  dialect: API_FLAGS.dialect,
  help: OUTPUT_FLAGS.help,
} as const satisfies FlagTable;

const RETRY_AFTER = ['seconds', 'date', 'none'] as const;

/** `bulk-describe simulate`: prints its base URL, and answers until it is told to stop. @returns 0 */
export async function simulateCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('simulate', argv, SIMULATE_FLAGS, env);
  const [extra] = flags.positionals;
  if (extra !== undefined) throw new UsageError(`simulate takes no argument: ${extra}`);
  const latency = flags.get('latency');
  const rateLimit = flags.get('rate-limit');
  const port = flags.integer('port', 0);
  if (port !== undefined && port > 65_535)
    throw new UsageError(`--port ${port}: expected a port up to 65535`);
  const dialect = dialectFor({ dialect: flags.get('dialect') });
  const signals = listenForSignals(() => undefined);
  try {
    const simulator = await start({
      port,
      latencyMs: latency === undefined ? undefined : parseDuration(latency, '--latency'),
      latencySpread: parseNumber(flags.get('spread'), '--spread'),
      rateLimit: rateLimit === undefined ? undefined : parseRate(rateLimit, '--rate-limit'),
      maxInFlight: flags.integer('max-in-flight', 1),
      retryAfter: parseChoice(flags.get('retry-after'), '--retry-after', RETRY_AFTER),
      token: flags.get('require-token'),
      failures: parseFailures(flags.get('fail')),
      webhooks: parseWebhookFaults(flags.get('webhooks')),
      shape: parseChoice<Shape>(flags.get('shape'), '--shape', SHAPES),
      seed: flags.integer('seed', 0),
      journal: flags.get('journal'),
    });
    process.stdout.write(`${simulator.urlOf(dialect.name)}\n`);
    await untilTold(signals.signal);
    await simulator.close();
    return 0;
  } finally {
    signals.dispose();
  }
}

/** Starts the simulator; a port or journal that cannot be had is the user's to mend. */
async function start(options: Parameters<typeof startSimulator>[0]): Promise<Simulator> {
  try {
    return await startSimulator(options);
  } catch (error) {
    if (!isSystemError(error)) throw error;
    if (error.code === 'EADDRINUSE') {
      throw new UsageError(
        `--port ${options?.port ?? ''} is in use: name another, or leave it away for a free one`,
      );
    }
    throw new UsageError(`the simulator cannot be started: ${messageOf(error)}`);
  }
}

function parseNumber(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d+(\.\d+)?$/.test(text)) throw new UsageError(`${name} ${text}: expected a number of at least 0`);
  return Number(text);
}

function parseChoice<T extends string>(
  text: string | undefined,
  name: string,
  choices: readonly T[],
): T | undefined {
  if (text === undefined) return undefined;
  const choice = choices.find((known) => known === text);
  if (choice === undefined) throw new UsageError(`${name} ${text}: expected one of ${choices.join(', ')}`);
  return choice;
}
