import { UsageError } from '../shared/errors.js';
import { type QueueConnection, type OpenQueueOptions, openQueue } from '../shared/queue/connection.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { shellQuote } from './text.js';
import { RUN_DEFAULTS } from '../run/run-options.js';

/** What a command that is shown to people needs to reach the same queue; nothing where the environment names it. */
export function queueArgument(
  url: string | undefined,
  env: NodeJS.ProcessEnv,
  { label }: Pick<QueueConnection, 'label'>,
): string {
  return url === undefined || url === env['QUEUE_URL'] ? '' : ` --queue ${shellQuote(label)}`;
}

/** An argument as it is shown to people: a queue's URL without its password, which would stay in logs. */
export function withoutPassword(argument: string): string {
  return argument.replace(
    /^((?:--queue=)?rediss?:\/\/)([^:@/]*):.*@/,
    (_, start: string, user: string) => start + (user === '' ? '' : `${user}@`),
  );
}

/**
 * Opens the queue of a command that shares it with other processes.
 * @param url `--queue`, or what stands in for it
 * @throws {UsageError} for the embedded queue, which one process has for itself
 * @throws {FatalError} when Redis is not there
 */
export async function openSharedQueue(
  command: string,
  url: string | undefined,
  env: NodeJS.ProcessEnv,
  options: OpenQueueOptions,
): Promise<QueueConnection> {
  const target = parseQueueUrl(url ?? RUN_DEFAULTS.queue, env);
  if (target.kind === 'embedded') {
    throw new UsageError(
      `${command} needs a queue that several processes share: give one with --queue redis://<host> or QUEUE_URL ` +
        '(`docker compose up -d redis` starts one at redis://localhost:6379); the embedded queue belongs to one process',
    );
  }
  return openQueue(target, { ...options, isShared: true });
}
