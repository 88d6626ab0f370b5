import { DescribeClient } from '../describe-api/client.js';
import { UsageError } from '../shared/errors.js';
import type { UndoStack } from '../shared/undo.js';
import { RUN_DEFAULTS, type RunOptions } from './run-options.js';

/** What tells whose API is called, and how. */
export type ClientOptions = Pick<RunOptions, 'api' | 'token' | 'requestTimeoutMs'>;

/**
 * The API's client; with `simulator` for an API, one that is started in this process.
 * @param undo gets the closing of both
 */
export async function openClient(options: ClientOptions, undo: UndoStack): Promise<DescribeClient> {
  let baseUrl = options.api ?? RUN_DEFAULTS.api;
  if (baseUrl === 'simulator') {
    const { startSimulator } = await import('../simulator/simulator.js');
    const simulator = await startSimulator({});
    undo.defer(() => simulator.close());
    baseUrl = simulator.url;
  }
  const client = new DescribeClient({ baseUrl, token: options.token, timeoutMs: options.requestTimeoutMs });
  undo.defer(() => client.close());
  return client;
}

/** @throws {UsageError} when calls of the API would need a token that is not there */
export function refuseMissingToken(options: Pick<RunOptions, 'api' | 'token' | 'work'>): void {
  if (options.api === 'simulator' || options.work === false || options.token !== undefined) return;
  throw new UsageError(
    'no token: give one with DESCRIBE_API_TOKEN or --token-file <path>, or try without one with --api simulator',
  );
}
