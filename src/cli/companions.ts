import { type ApiOptions, accountOf, checkWebhooks } from '../run/api-options.js';
import { dialectFor } from '../describe-api/dialects/index.js';
import { openImageRoot } from '../run/prepare.js';
import type { Companion } from '../run/run-options.js';
import { RootFolder } from '../service/root-folder.js';
import { describeQueueName } from '../shared/account.js';
import { UsageError, isSystemError, messageOf } from '../shared/errors.js';
import type { ListenAddress } from '../shared/http-server.js';
import { DASHBOARD_DEFAULTS, credentialsOf, refuseOpenDashboard } from '../dashboard/access.js';
import type { CallbackKeys } from '../webhook/callback-keys.js';
import type { OptionsOf } from './options.js';
import { listenForSignals, runUntilStopped, untilAborted } from './process.js';
import { Terminal } from './terminal.js';

/** `bulk-describe dashboard`: serves a queue's pages until it is stopped. @returns 0 */
export async function dashboard(options: OptionsOf<'dashboard'>): Promise<number> {
  const { host = DASHBOARD_DEFAULTS.host, queue } = options;
  refuseOpenDashboard(host, credentialsOf(process.env));
  const terminal = new Terminal(process.stderr, options);
  const imageRoots = options.imageRoot === undefined ? [] : [(await openImageRoot(options.imageRoot)).real];
  const companions = [dashboardAt(options, terminal, (url) => process.stdout.write(`${url}\n`))];
  const root = options.root === undefined ? undefined : await RootFolder.open(options.root);
  const about = { command: 'dashboard', queue, isReader: true, companions, imageRoots, root };
  return runUntilStopped(about, terminal);
}

/**
 * `bulk-describe webhook`: the receiver of an account's deliveries, for workers in other processes. Prints where it
 * listens; with `--show-url` the URL with the secret path instead.
 * @returns 0
 */
export async function webhook(options: OptionsOf<'webhook'>): Promise<number> {
  const { queue, webhookUrl, showUrl = false, webhookSecretFile: secret } = options;
  const { webhookListen = { host: '127.0.0.1', port: 8787 } } = options;
  checkWebhooks(options, 'webhook');
  const terminal = new Terminal(process.stderr, options);
  const receiver = receiverAt(webhookListen, options, secret, terminal, (url, keys) => {
    process.stdout.write(`${showUrl ? keys.callbackBase(webhookUrl ?? url) : url}\n`);
  });
  return runUntilStopped({ command: 'webhook', queue, companions: [receiver] }, terminal);
}

/** `bulk-describe simulate`: prints its base URL, and answers until it is stopped. @returns 0 */
export async function simulate(options: OptionsOf<'simulate'>): Promise<number> {
  const { port, latencyMs, latencySpread, rateLimit, maxInFlight } = options;
  const { retryAfter, token, failures, seed, journal } = options;
  const dialect = dialectFor({ dialect: options.dialect });
  const { signal } = listenForSignals();
  const { startSimulator } = await import('../simulator/simulator.js');
  const simulator = await startSimulator({
    ...{ port, latencyMs, latencySpread, rateLimit, maxInFlight },
    ...{ retryAfter, token, failures, seed, journal },
  }).catch((error: unknown) => {
    if (!isSystemError(error)) throw error;
    if (error.code !== 'EADDRINUSE') {
      throw new UsageError(`the simulator cannot be started: ${messageOf(error)}`);
    }
    throw new UsageError(`--port ${port ?? ''} is in use: name another, or leave it away for a free one`);
  });
  process.stdout.write(`${simulator.urlOf(dialect.name)}\n`);
  await untilAborted(signal);
  await simulator.close();
  return 0;
}

/**
 * What `--dashboard`, `--webhook-listen` and `--serve-images` start beside a run, a server or a worker: the dashboard of its
 * queue, for this machine; the receiver of its account, which does not show the secret path; and the server of local images.
 * @throws {UsageError} for half a pair of user and password, and for a dialect that has no webhooks
 */
export function companionsOf(
  options: Pick<OptionsOf<'serve'>, 'dashboard' | 'webhookListen' | 'serveImages'>,
  api: ApiOptions,
  terminal: Terminal,
): Companion[] {
  const { dashboard: port, webhookListen: listen, serveImages } = options;
  const companions: Companion[] = [];
  if (port !== undefined) {
    companions.push(dashboardAt({ port }, terminal, (url) => terminal.say(`dashboard ${url}`)));
  }
  if (listen !== undefined) {
    checkWebhooks(api, '--webhook-listen');
    const onStarted = (url: string) => terminal.say(`webhooks ${url}`);
    companions.push(receiverAt(listen, api, api.webhooks?.secret, terminal, onStarted));
  }
  if (serveImages !== undefined) companions.push(imagesAt(serveImages, api, terminal));
  return companions;
}

function imagesAt(address: ListenAddress, api: ApiOptions, terminal: Terminal): Companion {
  const queueName = describeQueueName(accountOf(api));
  const { publicUrl = '' } = api.images ?? {};
  return async ({ store }, roots) => {
    const { ImageUrls, startImageServer, whyUnreached } = await import('../worker/images.js');
    const urls = await ImageUrls.open(store, queueName, publicUrl);
    const server = await startImageServer(urls, address, { ...api.images, roots }, terminal.logger);
    terminal.say(`local images are served at ${server.url}, where ${publicUrl} has to lead`);
    const why = await whyUnreached(urls);
    if (why !== undefined)
      terminal.warn(
        `warning: from here ${publicUrl} does not lead to this process (${why}): unless it does from outside, the API can load no image`,
      );
    return () => server.close();
  };
}

function dashboardAt(
  options: Pick<OptionsOf<'dashboard'>, 'host' | 'port' | 'readOnly'>,
  { logger }: Terminal,
  onStarted: (url: string) => void,
): Companion {
  const credentials = credentialsOf(process.env);
  return async (connection, imageRoots, mayRead) => {
    const { startDashboard } = await import('../dashboard/dashboard.js');
    const started = await startDashboard(connection, {
      ...options,
      imageRoots,
      mayRead,
      credentials,
      logger,
    });
    onStarted(started.url);
    return () => started.close();
  };
}

function receiverAt(
  listen: ListenAddress,
  api: ApiOptions,
  secret: string | undefined,
  terminal: Terminal,
  onStarted: (url: string, keys: CallbackKeys) => void,
): Companion {
  const queueName = describeQueueName(accountOf(api));
  return async ({ store }) => {
    const { openAddressWarning, startAccountReceiver } = await import('../webhook/receiver.js');
    const { logger } = terminal;
    const receiver = await startAccountReceiver({ store, queueName, secret, listen, logger });
    onStarted(receiver.url, receiver.keys);
    const warning = openAddressWarning(listen);
    if (warning !== undefined) terminal.warn(warning);
    return () => receiver.close();
  };
}
