import { type ApiOptions, accountOf, checkWebhookUrl, checkWebhooks } from '../run/api-options.js';
import type { Companion } from '../run/run-options.js';
import { describeQueueName } from '../shared/account.js';
import type { ListenAddress } from '../shared/http-server.js';
import type { startAccountReceiver } from '../webhook/receiver.js';
import type { OptionsOf } from './options.js';
import { runUntilStopped } from './process.js';
import { type Talk, createTalk } from './terminal.js';

const DEFAULT_LISTEN = { host: '127.0.0.1', port: 8787 };

/**
 * `bulk-describe webhook`: the receiver of an account's deliveries, for workers in other processes. Prints where it
 * listens; with `--show-url` the URL with the secret path instead.
 * @returns 0
 */
export async function webhook(options: OptionsOf<'webhook'>): Promise<number> {
  const {
    api,
    account,
    dialect,
    webhookUrl,
    webhookListen = DEFAULT_LISTEN,
    webhookSecretFile: secret,
  } = options;
  if (webhookUrl !== undefined) checkWebhookUrl(webhookUrl);
  checkWebhooks({ api, dialect }, 'webhook');
  const talk = createTalk(options);
  const start = receiverAt(webhookListen, { api, account, dialect }, secret, talk, ({ url, keys }) => {
    process.stdout.write(`${options.showUrl === true ? keys.callbackBase(webhookUrl ?? url) : url}\n`);
  });
  return runUntilStopped({ command: 'webhook' }, options.queue, talk, async ({ connection, undo }) => {
    undo.defer(await start(connection));
  });
}

/**
 * What `--webhook-listen` starts beside a run or a worker: the receiver of its account. It says where it listens,
 * without the secret path.
 * @returns undefined without the flag
 */
export function webhookCompanion(
  { webhookListen }: OptionsOf<'worker'>,
  api: ApiOptions,
  talk: Talk,
): Companion | undefined {
  if (webhookListen === undefined) return undefined;
  checkWebhooks(api, '--webhook-listen');
  return receiverAt(webhookListen, api, api.webhooks?.secret, talk, ({ url }) =>
    talk.terminal.say(`webhooks ${url}`),
  );
}

function receiverAt(
  listen: ListenAddress,
  api: ApiOptions,
  secret: string | undefined,
  { terminal, logger }: Talk,
  onStarted: (receiver: Awaited<ReturnType<typeof startAccountReceiver>>) => void,
): Companion {
  const queueName = describeQueueName(accountOf(api));
  return async ({ store }) => {
    const { openAddressWarning, startAccountReceiver } = await import('../webhook/receiver.js');
    const receiver = await startAccountReceiver({ store, queueName, secret, listen, logger });
    onStarted(receiver);
    const warning = openAddressWarning(listen);
    if (warning !== undefined) terminal.warn(warning);
    return () => receiver.close();
  };
}
