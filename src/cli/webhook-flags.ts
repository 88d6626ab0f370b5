import type { ApiOptions } from '../run/api-options.js';
import { accountOf, checkWebhookUrl, checkWebhooks } from '../run/api-options.js';
import { type Companion, RUN_DEFAULTS, type RunOptions } from '../run/run-options.js';
import { describeQueueName } from '../shared/account.js';
import { checkSecret } from '../webhook/callback-keys.js';
import { UsageError } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { readFlagFile } from './flag-file.js';
import type { FlagTable, ParsedFlags } from './flags.js';

/** What the API is told, and where its calls arrive. */
export const WEBHOOK_FLAGS = {
  'webhook-url': { takes: 'value' },
  'webhook-listen': { takes: 'value' },
  'webhook-secret-file': { takes: 'value' },
} as const satisfies FlagTable;

type WebhookFlags = ParsedFlags<typeof WEBHOOK_FLAGS>;

/**
 * What a worker is to know of webhooks; undefined without `--webhook-url`.
 * @throws {UsageError} for flags that cannot work
 */
export function webhooksOf(flags: WebhookFlags, env: NodeJS.ProcessEnv): ApiOptions['webhooks'] {
  const url = flags.get('webhook-url');
  const secret = readSecret(flags, env);
  if (url !== undefined) return { url: checkWebhookUrl(url), secret };
  if (flags.has('webhook-listen')) {
    throw new UsageError(
      '--webhook-listen needs --webhook-url <url>: the public URL that leads to it, which the API is told',
    );
  }
  if (flags.has('webhook-secret-file')) {
    throw new UsageError('--webhook-secret-file needs --webhook-url <url>, whose path is made from it');
  }
  return undefined;
}

/** An embedded queue belongs to one process: no other can receive for it. @throws {UsageError} */
export function checkReceiver(
  flags: WebhookFlags,
  { webhooks, queue }: Pick<RunOptions, 'webhooks' | 'queue'>,
  env: NodeJS.ProcessEnv,
): void {
  if (webhooks === undefined || flags.has('webhook-listen')) return;
  if (parseQueueUrl(queue ?? RUN_DEFAULTS.queue, env).kind !== 'embedded') return;
  throw new UsageError(
    '--webhook-url needs --webhook-listen <host:port> too with the embedded queue, since no other process can receive for it',
  );
}

/** The user's own secret; undefined where the queue is to keep one. @throws {UsageError} */
export function readSecret(flags: WebhookFlags, env: NodeJS.ProcessEnv): string | undefined {
  const path = flags.get('webhook-secret-file');
  if (path === undefined) {
    const secret = env['DESCRIBE_WEBHOOK_SECRET']?.trim() ?? '';
    return secret === '' ? undefined : checkSecret(secret, 'DESCRIBE_WEBHOOK_SECRET');
  }
  return checkSecret(readFlagFile('--webhook-secret-file', path), `--webhook-secret-file ${path}`);
}

/**
 * What `--webhook-listen` starts beside a run or a worker: the receiver of its account.
 * @param onStarted is told where it listens, without the secret path
 * @returns undefined without the flag
 */
export async function webhookCompanion(
  flags: WebhookFlags,
  options: ApiOptions,
  about: {
    readonly logger: Logger;
    readonly onStarted: (url: string) => void;
    readonly warn: (text: string) => void;
  },
): Promise<Companion | undefined> {
  const text = flags.get('webhook-listen');
  if (text === undefined) return undefined;
  const { openAddressWarning, parseListenAddress } = await import('../webhook/receiver.js');
  const listen = parseListenAddress(text, '--webhook-listen');
  checkWebhooks(options, '--webhook-listen');
  const queueName = describeQueueName(accountOf(options));
  return async ({ store }) => {
    const { startAccountReceiver } = await import('../webhook/receiver.js');
    const secret = options.webhooks?.secret;
    const receiver = await startAccountReceiver({ store, queueName, secret, listen, logger: about.logger });
    about.onStarted(receiver.url);
    const warning = openAddressWarning(listen);
    if (warning !== undefined) about.warn(warning);
    return () => receiver.close();
  };
}
