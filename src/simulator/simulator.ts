import { SimulatedApi } from './api.js';
import {
  change,
  completeOptions,
  type SimulatorOptions,
  type SimulatorSettings,
  type Some,
} from './options.js';
import { createApp } from './server.js';
import type { SimulatorStats } from './stats.js';

export type { SimulatorOptions, SimulatorSettings, WebhookFaults } from './options.js';
export { readJournal } from './stats.js';

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

/**
 * Starts a describe API on localhost. Messages are in their ids, so that another simulator answers for them.
 * Beside the API, `GET /stats` gives the stats as JSON and `POST /options` takes partial settings.
 * @param options see `DEFAULTS`
 * @throws {UsageError} for options that cannot be
 * @throws when the port is taken or the journal cannot be read or written
 */
export async function startSimulator(options: Some<SimulatorOptions> = {}): Promise<Simulator> {
  const complete = completeOptions(options);
  const { host, port: wanted } = complete;
  const api = new SimulatedApi(complete);
  const app = createApp(api);
  const close = async (): Promise<void> => {
    await app.close();
    await api.close();
  };
  try {
    await app.listen({ port: wanted, host });
  } catch (error) {
    await close();
    throw error;
  }
  const address = app.server.address();
  const port = typeof address === 'object' && address ? address.port : wanted;
  const origin = originOf(host, port);
  let closing: Promise<void> | undefined;
  return {
    url: `${origin}/v2`,
    urlOf: (dialect) => (dialect === 'thenextleg' ? `${origin}/v2` : origin),
    port,
    stats: () => api.stats.read(api.inFlight),
    setOptions: (changes) => {
      api.settings = change(api.settings, changes);
    },
    close: () => (closing ??= close()),
  };
}

/** The origin by which the machine itself reaches the server. */
function originOf(host: string, port: number): string {
  const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`;
}
