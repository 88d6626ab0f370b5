import { accountOf, checkWebhookUrl, checkWebhooks } from '../run/api-options.js';
import { describeQueueName } from '../shared/account.js';
import { UsageError } from '../shared/errors.js';
import { startAccountReceiver } from '../webhook/receiver.js';
import { openAddressWarning, parseListenAddress } from '../webhook/receiver.js';
import { API_FLAGS } from './api-flags.js';
import { type FlagTable, parseFlags } from './flags.js';
import { WEBHOOK_FLAGS, readSecret } from './webhook-flags.js';
import { SERVICE_FLAGS, runUntilTold, talkOf } from './until-told.js';

const COMMAND_FLAGS = {
  ...API_FLAGS,
  ...WEBHOOK_FLAGS,
  'show-url': { takes: 'nothing' },
  ...SERVICE_FLAGS,
} as const satisfies FlagTable;

const DEFAULT_LISTEN = '127.0.0.1:8787';

/**
 * `bulk-describe webhook`: the receiver of an account's deliveries, for workers in other processes. Prints where it
 * listens; with `--show-url` the URL with the secret path instead.
 * @returns 0
 */
export async function webhookCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('webhook', argv, COMMAND_FLAGS, env);
  const [extra] = flags.positionals;
  if (extra !== undefined) throw new UsageError(`webhook takes no argument: ${extra}`);
  const listen = parseListenAddress(flags.get('webhook-listen') ?? DEFAULT_LISTEN, '--webhook-listen');
  const publicUrl = flags.get('webhook-url');
  if (publicUrl !== undefined) checkWebhookUrl(publicUrl);
  const secret = readSecret(flags, env);
  const api = { api: flags.get('api'), account: flags.get('account'), dialect: flags.get('dialect') };
  checkWebhooks(api, 'webhook');
  const queueName = describeQueueName(accountOf(api));
  const { terminal, logger } = talkOf(flags);
  return runUntilTold('webhook', { flags, env, terminal, logger }, async ({ connection, undo }) => {
    const { store } = connection;
    const receiver = await startAccountReceiver({ store, queueName, secret, listen, logger });
    undo.defer(() => receiver.close());
    const shown = flags.has('show-url')
      ? receiver.keys.callbackBase(publicUrl ?? receiver.url)
      : receiver.url;
    process.stdout.write(`${shown}\n`);
    const warning = openAddressWarning(listen);
    if (warning !== undefined) terminal.warn(warning);
  });
}
