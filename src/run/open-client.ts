import { DescribeClient } from '../describe-api/client.js';
import { dialectFor } from '../describe-api/dialects/index.js';
import type { UndoStack } from '../shared/undo.js';
import { type ApiOptions, apiOf, apiWarnings, checkApi, dialectSettingsOf } from './api-options.js';

/**
 * The API's client, for whoever works; with `simulator` for an API, one that is started in this process.
 * @param undo gets the closing of both
 * @param warn is told what a person should know
 * @throws {UsageError} for options that cannot work
 */
export async function openClient(
  options: ApiOptions,
  undo: UndoStack,
  warn: (text: string) => void,
): Promise<DescribeClient> {
  checkApi(options);
  for (const text of apiWarnings(options)) warn(text);
  const dialect = dialectFor(options);
  let baseUrl = apiOf(options);
  if (baseUrl === 'simulator') {
    const { startSimulator } = await import('../simulator/simulator.js');
    const simulator = await startSimulator({});
    undo.defer(() => simulator.close());
    baseUrl = simulator.urlOf(dialect.name);
  }
  const client = new DescribeClient({
    baseUrl,
    dialect,
    token: options.token,
    timeoutMs: options.requestTimeoutMs,
    ...dialectSettingsOf(options),
  });
  undo.defer(() => client.close());
  return client;
}
