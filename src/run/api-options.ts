import { hash } from 'node:crypto';
import { type AnswerShape, parseFields, parseSchema, promptsShape } from '../describe-api/answer-shape.js';
import { type Dialect, checkSettings, dialectFor } from '../describe-api/dialects/index.js';
import type { DialectSettings } from '../describe-api/dialects/dialect.js';
import { type CallHeaders, callHeaders } from '../describe-api/request-headers.js';
import { type Account, parseAccountName } from '../shared/account.js';
import { UsageError } from '../shared/errors.js';
import { PROMPT_COLUMNS } from '../shared/jobs.js';
import { parseJson } from '../shared/parse-json.js';
import type { ImageOptions } from '../shared/prepare-image.js';
import type { WebhookOptions } from '../worker/webhooks.js';

/** The host under which every built-in simulator is filed, whatever port it listens on. */
const SIMULATOR_HOST = 'simulator';
/** Of a model's name in that of its account. */
const MODEL_CHARACTERS = 40;

/** Which API is spoken to, how, and as whom; and what only some dialects have. */
export interface ApiOptions extends CallHeaders, Omit<DialectSettings, 'expireMins' | 'answer' | 'format'> {
  /** The API's base URL, with a query where each call is to have it; or `simulator` for one in this process. The dialect's own unless it is given. */
  readonly api?: string | undefined;
  readonly token?: string | undefined;
  /** Whose limits these are, where one API has several tokens; `default`. */
  readonly account?: string | undefined;
  /** Name of the API's dialect; that of its host unless it is given, else `thenextleg`. */
  readonly dialect?: string | undefined;
  /** Milliseconds after which the API is to give an uncompleted message up; sent in whole minutes, rounded up. */
  readonly expireAfterMs?: number | undefined;
  /** How many prompts a model is asked for; 4. */
  readonly count?: number | undefined;
  /** Fields that it is asked for in their place, see `parseFields`; or a JSON Schema of an object that has them. */
  readonly fields?: string | undefined;
  readonly schema?: string | undefined;
  /** Where the API is to say that an image is done; its messages are polled for alone without. */
  readonly webhooks?: WebhookOptions | undefined;
  /** How images are sent. */
  readonly images?: ImageOptions | undefined;
  /** Milliseconds that one call of the API may take, its answer's body included; 30 seconds. */
  readonly requestTimeoutMs?: number | undefined;
}

/** Where the API is: a base URL, or `simulator`. */
export function apiOf(options: Pick<ApiOptions, 'api' | 'dialect'>): string {
  return options.api ?? dialectFor(options).api;
}

/** What belongs to an account: any worker of it describes any of its images. */
type AccountOptions = Partial<ReturnType<typeof accountOptionsIn>>;

/** Of options those that name the account. */
export function accountOptionsIn(options: ApiOptions) {
  const { api, account, dialect, authHeader, headers, secretHeaders } = options;
  const { model, prompt, choices, count, fields, schema, system, params } = options;
  const asked = { model, prompt, choices, count, fields, schema, system, params };
  return { api, account, dialect, authHeader, headers, secretHeaders, ...asked };
}

/**
 * The account that options name. Where a model is asked, each model, prompt and number of choices has an account of its
 * own, and so have headers and queries of one's own: any worker of an account describes any of its images.
 * @throws {UsageError} when its API, dialect or name cannot be, or its model is not said
 */
export function accountOf(options: AccountOptions): Account {
  const api = apiOf(options);
  const { name: dialect, takesModel } = dialectFor(options);
  const given = parseAccountName(options.account ?? 'default');
  const called = calledOf(options, api);
  const asked = takesModel === true ? askedOf(options, called) : called && shortDigest(called);
  const name = asked === undefined ? given : `${given}+${asked}`;
  if (api === 'simulator') return { host: SIMULATOR_HOST, dialect, name };
  if (!URL.canParse(api) || !/^https?:$/.test(new URL(api).protocol)) {
    throw new UsageError('--api: expected an http(s) URL, or `simulator` to try without an account');
  }
  return { host: new URL(api).host, dialect, name };
}

/** Names what a model is asked, for people, and so that no other model or prompt has the same name. */
function askedOf(options: ApiOptions, called: unknown): string {
  const settings = dialectSettingsOf(options);
  checkSettings(dialectFor(options), settings);
  const { model = '', prompt, choices = 1, system, params, answer } = settings;
  const more = [answer?.schema, system, params];
  // What is asked as ever has the account that it has had.
  const others = more.every((value) => value === undefined) ? [] : [more];
  const digest = shortDigest([model, prompt, choices, ...others, ...(called === undefined ? [] : [called])]);
  return `${model.replace(/[^\w.-]+/g, '-').slice(0, MODEL_CHARACTERS)}.${digest}`;
}

/** What every call has beside the dialect's own, of secret headers their names alone; undefined where there is nothing. */
function calledOf(
  { authHeader, headers = {}, secretHeaders = {} }: CallHeaders,
  api: string,
): readonly unknown[] | undefined {
  const query = URL.canParse(api) ? new URL(api).search : '';
  const ofHeaders = Object.entries(headers).map(([name, value]) => `${name.toLowerCase()}: ${value}`);
  const names = [...ofHeaders, ...Object.keys(secretHeaders).map((name) => name.toLowerCase())].sort();
  return query === '' && authHeader === undefined && names.length === 0
    ? undefined
    : [authHeader?.toLowerCase() ?? '', names, query];
}

function shortDigest(value: unknown): string {
  return hash('sha256', JSON.stringify(value), 'hex').slice(0, 8);
}

/** What of the options only some dialects have. */
export function dialectSettingsOf(options: ApiOptions): DialectSettings {
  const { submitMethod, expireAfterMs, prompt, choices, system, params } = options;
  const isSimulated = options.api === 'simulator' && dialectFor(options).takesModel === true;
  return {
    ...{ submitMethod, prompt, choices, system, params, answer: answerShapeOf(options) },
    expireMins: expireAfterMs === undefined ? undefined : expireAfterMs / 60_000,
    model: options.model ?? (isSimulated ? 'simulator' : undefined),
  };
}

/**
 * What a model is asked for, where it is anything else than the four prompts.
 * @throws {UsageError} when it cannot be
 */
export function answerShapeOf({
  count,
  fields,
  schema,
}: Pick<ApiOptions, 'count' | 'fields' | 'schema'>): AnswerShape | undefined {
  if ([count, fields, schema].filter((value) => value !== undefined).length > 1)
    throw new UsageError('--count, --fields and --schema: give one of them');
  if (fields !== undefined) return parseFields(fields);
  if (schema === undefined) return count === undefined ? undefined : promptsShape(count);
  const json = parseJson(schema);
  if (json === undefined) throw new UsageError('--schema: the file is no JSON');
  return parseSchema(json, '--schema');
}

/** The output's columns for answers. */
export function answerColumnsOf(options: ApiOptions): readonly string[] {
  return answerShapeOf(options)?.columns ?? PROMPT_COLUMNS;
}

/**
 * Refuses what a worker could not work with: flags that the dialect does not have, no model, no token.
 * @throws {UsageError}
 */
export function checkApi(options: ApiOptions): void {
  const dialect: Dialect = dialectFor(options);
  checkSettings(dialect, dialectSettingsOf(options));
  if (options.images?.send === 'data') refuseBytes(dialect, '--send data');
  callHeaders(dialect, options.token, options);
  if (options.webhooks !== undefined) {
    checkWebhooks(options, '--webhook-url');
    checkPublicUrl(options.webhooks.url, '--webhook-url');
  }
  const hasToken = options.token !== undefined || options.secretHeaders !== undefined;
  if (hasToken || options.api === 'simulator') return;
  const isOwn = dialect.hosts.includes(accountOf(options).host);
  if (dialect.isTokenOptional === true && !isOwn) return;
  throw new UsageError(
    'no token: give one with DESCRIBE_API_TOKEN or --token-file <path>, or try without one with --api simulator',
  );
}

/**
 * Refuses images that have no URL where nothing else can be sent.
 * @param count how many there are
 * @throws {UsageError}
 */
export function checkLocalImages(
  options: ApiOptions & { readonly work?: boolean | undefined },
  count: number,
): void {
  // Where others work, they may serve them.
  const { images = options.work === false ? undefined : {} } = options;
  if (count === 0 || images === undefined || images.publicUrl !== undefined) return;
  if (images.send === 'url')
    throw new UsageError(`--send url: images on this machine have no URL: leave it away, or ${SERVE_THEM}`);
  refuseBytes(dialectFor(options), 'the images are on this machine');
}

const SERVE_THEM = 'serve them from here with --serve-images <host:port> --public-url <url>';

function refuseBytes(dialect: Dialect, what: string): void {
  if (dialect.takesData === true) return;
  throw new UsageError(
    `${what}: the dialect ${dialect.name} takes URLs alone: ${SERVE_THEM}, or put them on a web server and name it with --base-url <url>`,
  );
}

/**
 * Refuses webhooks where there are none.
 * @param asked the flag or command that asks for them
 * @throws {UsageError}
 */
export function checkWebhooks(options: Pick<ApiOptions, 'api' | 'dialect'>, asked: string): void {
  const dialect: Dialect = dialectFor(options);
  if (dialect.messageUrl !== undefined) return;
  throw new UsageError(
    `${asked}: the dialect ${dialect.name} has no webhooks, its submits are answered with the outcome; leave it away`,
  );
}

/** @throws {UsageError} for what the API could not call */
export function checkPublicUrl(text: string, source: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url?.username === '' && url.password === '' && url.search === '' && url.hash === '';
  if (url !== undefined && /^https?:$/.test(url.protocol) && isPlain) return text;
  // The text is not shown: it may hold a secret.
  throw new UsageError(`${source}: expected an http(s) URL without user name, password, query and fragment`);
}

/** What a person should know before these options are used, one line each. */
export function apiWarnings(options: ApiOptions): string[] {
  if (options.submitMethod !== 'get') return [];
  return [
    'warning: with --submit-method get the token is in the URL of each submit, where proxies and servers log it: use it only where POST does not work',
  ];
}
