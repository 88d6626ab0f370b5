import { Journal, readJournal } from './journal.js';
import { AccountLimits } from './limits.js';
import { DEFAULT_EXPIRE_MINS, endsAt, parseMessageId } from './message-id.js';
import {
  change,
  checkOptions,
  DEFAULTS,
  type SimulatorOptions,
  type SimulatorSettings,
  type Some,
} from './options.js';
import { seededRandom } from './random.js';
import { createApp } from './routes.js';
import { type SimulatorStats, StatsKeeper } from './stats.js';
import { SubmitDesk } from './submit.js';
import { WebhookSender } from './webhooks.js';

export { readJournal } from './journal.js';
export type {
  FailureKind,
  FailureShares,
  Shape,
  SimulatorOptions,
  SimulatorSettings,
  WebhookFaults,
} from './options.js';
export type { SimulatorStats } from './stats.js';

export interface Simulator {
  /** The API's base: `http://127.0.0.1:<port>/v2`. */
  readonly url: string;
  /** The API's base for a dialect: all are spoken on the same port, by their paths. */
  urlOf(dialect: string): string;
  readonly port: number;
  stats(): SimulatorStats;
  /** Changes settings from now on; `failures` and `webhooks` are replaced as a whole. */
  setOptions(changes: Some<SimulatorSettings>): void;
  /** Ends all connections (answers that hang included) and forgets webhooks that are not due. */
  close(): Promise<void>;
}

const WEBHOOK_SEED = 0x5eed;

/** The origin by which the machine itself reaches the server. */
function originOf(host: string, port: number): string {
  const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`;
}

/** Takes up what an earlier process accepted: it is paid, and in progress until it is done. */
function restore(path: string, stats: StatsKeeper, limits: AccountLimits): void {
  const nowMs = Date.now();
  for (const { url, messageId } of readJournal(path)) {
    stats.countPaid(url);
    const facts = parseMessageId(messageId);
    const untilMs = facts ? endsAt(facts, DEFAULT_EXPIRE_MINS) : 0;
    if (untilMs > nowMs) limits.occupy(untilMs);
  }
}

/**
 * Starts a describe API on localhost. Messages are in their ids, so that another simulator answers for them.
 * Beside the API, `GET /stats` gives the stats as JSON and `POST /options` takes partial settings.
 * @param options see `DEFAULTS`
 * @throws when the port is taken or the journal cannot be read or written
 */
export async function startSimulator(options: Some<SimulatorOptions> = {}): Promise<Simulator> {
  checkOptions(options);
  const all = change(DEFAULTS, options);
  let settings: SimulatorSettings = all;
  const stats = new StatsKeeper(all.trackUrls);
  const limits = new AccountLimits();
  if (all.journal !== null) restore(all.journal, stats, limits);
  const journal = all.journal === null ? undefined : new Journal(all.journal);
  const random = seededRandom(all.seed);
  const readSettings = (): SimulatorSettings => settings;
  const setOptions = (changes: Some<SimulatorSettings>): void => {
    settings = change(settings, changes);
  };
  // Numbers of their own: what goes wrong with deliveries changes nothing else for the same seed.
  const webhooks = new WebhookSender({
    settings: readSettings,
    random: seededRandom(all.seed ^ WEBHOOK_SEED),
    stats,
  });
  const readStats = (): SimulatorStats => stats.read(limits.inFlight(Date.now()));
  const desk = new SubmitDesk({ settings: readSettings, limits, stats, random, webhooks, journal });
  const app = createApp({ desk, stats, random, settings: readSettings, setOptions, readStats });

  const close = async (): Promise<void> => {
    await app.close();
    await webhooks.close();
    journal?.close();
  };
  try {
    await app.listen({ port: all.port, host: all.host });
  } catch (error) {
    await close();
    throw error;
  }
  const address = app.server.address();
  const port = typeof address === 'object' && address ? address.port : all.port;
  let closing: Promise<void> | undefined;
  const origin = originOf(all.host, port);
  const url = `${origin}/v2`;
  return {
    url,
    urlOf: (dialect) => (dialect === 'thenextleg' ? url : origin),
    port,
    stats: readStats,
    setOptions,
    close: () => (closing ??= close()),
  };
}
