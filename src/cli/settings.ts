import { type Dialect, dialectFor } from '../describe-api/dialects/index.js';
import type { ApiOptions } from '../run/api-options.js';
import type { Prices, RunOptions } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import { type Limits, perSecond } from '../shared/limits.js';
import type { OptionsOf } from './options.js';

/** What a command that works has been given of its API and account. */
export type AccountOptions = ApiOptions & Pick<RunOptions, 'limits'>;

/** Whose API is called, how, and how fast; with all the other options. @throws {UsageError} */
export function accountOptionsOf(options: OptionsOf<'worker'>): AccountOptions {
  const { api, promptFile, prompt = promptFile, token, webhookUrl: url, webhookSecretFile: secret } = options;
  if (options.prompt !== undefined && promptFile !== undefined)
    throw new UsageError('--prompt and --prompt-file: give one of them');
  const { send, maxBytes, side, followLinks, allowPrivate, publicUrl } = options;
  return {
    ...options,
    prompt,
    token: api === 'simulator' ? undefined : token,
    limits: limitsOf(options),
    images: { send, maxBytes, side, followLinks, allowPrivate, publicUrl },
    webhooks: url === undefined ? undefined : { url, secret },
  };
}

/** What the API takes; undefined where nothing is said of it. */
export function pricesOf({ perImage, perMillionIn, perMillionOut }: OptionsOf<'report'>): Prices | undefined {
  const isPriced = (perImage ?? perMillionIn ?? perMillionOut) !== undefined;
  return isPriced ? { perImage, perMillionIn, perMillionOut } : undefined;
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
