import { UsageError } from '../shared/errors.js';
import { queueTrouble, startHealthServer } from '../shared/health-server.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import type { UndoStack } from '../shared/undo.js';
import type { FlagTable, ParsedFlags } from './flags.js';

/** Liveness and readiness, of the commands that run until they are told to stop. */
export const HEALTH_FLAGS = {
  'health-port': { takes: 'value' },
  'health-host': { takes: 'value' },
} as const satisfies FlagTable;

/** Where to listen; undefined without `--health-port`. @throws {UsageError} for what is no port */
export function healthAddressOf(
  flags: ParsedFlags<typeof HEALTH_FLAGS>,
): { readonly host: string; readonly port: number } | undefined {
  const port = flags.integer('health-port', 0);
  if (port === undefined) {
    if (flags.has('health-host')) throw new UsageError('--health-host needs --health-port <n>');
    return undefined;
  }
  if (port > 65_535) throw new UsageError(`--health-port ${port}: expected a port up to 65535`);
  return { host: flags.get('health-host') ?? '127.0.0.1', port };
}

/**
 * Answers liveness and readiness, if the flags ask for it.
 * @param notReady why this process does not do its work, beside a queue that is away
 * @returns what to tell people; undefined without `--health-port`
 */
export async function startHealth(
  flags: ParsedFlags<typeof HEALTH_FLAGS>,
  connection: QueueConnection,
  notReady: () => string | undefined,
  undo: UndoStack,
): Promise<string | undefined> {
  const address = healthAddressOf(flags);
  if (address === undefined) return undefined;
  const server = await startHealthServer({
    ...address,
    notReady: async () => notReady() ?? (await queueTrouble(connection)),
  });
  undo.defer(() => server.close());
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `health at http://${host}:${server.port}/healthz and /readyz`;
}
