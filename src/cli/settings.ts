import { type Dialect, dialectFor } from '../describe-api/dialects/index.js';
import { type ApiOptions, checkPublicUrl } from '../run/api-options.js';
import type { RunOptions } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import { type Limits, perSecond } from '../shared/limits.js';
import type { ImageOptions } from '../shared/image-options.js';
import type { OptionsOf } from './options.js';

/** Which rows there are, and what is to be done with them, whoever executes the run. */
export function taskOptionsOf(options: OptionsOf<'enqueue'>) {
  const { format, delimiter, escapeFormulas, listSeparator, urlColumn, keyColumn, baseUrl, output } = options;
  const { imageRoot, keep, drop, inOrder, promptsAs } = options;
  const { attempts, deadline, limit, accept = [], stopFailing, newColumns = false, payAgain } = options;
  const task = { attempts, deadlineMs: deadline, limit, accept, stopFailing, newColumns, payAgain };
  // A server of another version refuses what it does not know.
  const header = options.header ? undefined : false;
  const { usage, maxCost, maxCalls } = options;
  const prices = pricesOf(options);
  const written = { keep, drop, escapeFormulas, listSeparator, output, usage, prices, maxCost, maxCalls };
  return {
    union: options.union,
    format,
    delimiter,
    header,
    columns: options.columns,
    encoding: options.encoding,
    records: options.records,
    urlColumn,
    keyColumn,
    titleColumn: options.titleColumn,
    baseUrl,
    imageRoot,
    inOrder,
    promptsAs,
    ...written,
    ...task,
  };
}

/** What the API takes; undefined where nothing is said of it. */
export function pricesOf({
  price: perImage,
  priceIn: perMillionIn,
  priceOut: perMillionOut,
}: OptionsOf<'report'>) {
  const isPriced = [perImage, perMillionIn, perMillionOut].some((price) => price !== undefined);
  return isPriced ? { perImage, perMillionIn, perMillionOut } : undefined;
}

/** What a command that works has been given of its API and account. */
export type AccountOptions = ApiOptions & Pick<RunOptions, 'limits'>;

/** Whose API is called, how, and how fast. @throws {UsageError} for a webhook URL that the API could not call */
export function accountOptionsOf(options: OptionsOf<'worker'>): AccountOptions {
  const { api, account, dialect, submitMethod, expireAfter, model, choices } = options;
  const { system, count, fields, schema, param: params, prompt = options.promptFile } = options;
  const { tokenFile: token, webhookUrl, webhookSecretFile: secret } = options;
  if (options.prompt !== undefined && options.promptFile !== undefined)
    throw new UsageError('--prompt and --prompt-file: give one of them');
  return {
    ...{ api, account, dialect, submitMethod, model, prompt, choices, system, count, fields, schema, params },
    ...callHeadersOf(options),
    expireAfterMs: expireAfter,
    token: api === 'simulator' ? undefined : token,
    limits: limitsOf(options),
    images: imageOptionsOf(options),
    webhooks:
      webhookUrl === undefined ? undefined : { url: checkPublicUrl(webhookUrl, '--webhook-url'), secret },
  };
}

function imageOptionsOf(options: OptionsOf<'serve'>): ImageOptions {
  const { send, maxImageBytes: maxBytes, imageSide: side, followLinks, allowPrivate, publicUrl } = options;
  return { send, maxBytes, side, followLinks, allowPrivate, publicUrl };
}

/** What every call is to have beside the dialect's own. */
export function callHeadersOf({ authHeader, headers, headerFile: secretHeaders }: OptionsOf<'webhook'>) {
  return { authHeader, headers, secretHeaders };
}

/** The limits that are given. */
export function limitsOf({ rate, pollRate, maxInFlight }: OptionsOf<'enqueue'>): Partial<Limits> {
  return {
    ...(rate !== undefined && { rate }),
    ...(pollRate !== undefined && { pollRate }),
    ...(maxInFlight !== undefined && { maxInFlight }),
  };
}

/**
 * A warning about limits that cannot work well together; undefined when there is none.
 * @param api whose limits they are: where the answer is the outcome, nothing is polled
 */
export function limitsWarning(limits: Limits, api: Pick<ApiOptions, 'api' | 'dialect'>): string | undefined {
  const dialect: Dialect = dialectFor(api);
  if (dialect.messageUrl === undefined) return undefined;
  if (perSecond(limits.pollRate) >= perSecond(limits.rate)) return undefined;
  return 'warning: --poll-rate is lower than --rate: every image needs at least one poll, so the poll rate is what counts';
}
