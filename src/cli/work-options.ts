import { RUN_DEFAULTS } from '../run/run-options.js';
import { DEFAULT_LIMITS, formatRate } from '../shared/limits.js';
import { IMAGE_DEFAULTS } from '../shared/prepare-image.js';
import { group, option } from './option-spec.js';
import * as parse from './option-spec.js';

const API = 'The API:';
const IMAGES = 'How images are sent (by URL where the API loads it, else the image itself):';
const LIMITS = 'Limits, held over all workers of the account together:';
const COSTS = 'What it costs:';
const WEBHOOKS = 'Webhooks (the API calls when an image is done, so it costs one poll and finishes at once):';

const WEBHOOK_SECRET = {
  env: 'DESCRIBE_WEBHOOK_SECRET',
  file: 'the secret',
  default: 'a random one, kept in the queue',
  parse: parse.secret,
};

/** The options of whoever works: the API and what is asked of it, limits, costs and webhooks. */
export const WORK_OPTIONS = [
  group(API, ['run', 'worker', 'serve', 'webhook', 'enqueue', 'schedule add'], {
    api: option('--api <url>', 'the API, or `simulator` for the built-in one, which needs no token', {
      env: 'DESCRIBE_API_URL',
      default: RUN_DEFAULTS.api,
    }),
    account: option('--account <name>', 'whose limits these are, where you have several tokens', {
      env: 'DESCRIBE_ACCOUNT',
      default: RUN_DEFAULTS.account,
    }),
    dialect: option('--dialect <name>', 'thenextleg, imaginepro, legnext, openai or mj', {
      default: "by the API's host",
      parse: parse.dialect,
    }),
  }),
  group(API, ['run', 'worker', 'serve', 'webhook'], {
    authHeader: option(
      '--auth-header <name>',
      'the header that holds the token alone, such as mj-api-secret, api-key or Authorization; or `bearer`',
      { default: "the dialect's, mostly bearer" },
    ),
    headers: option('--header <name=value>', 'a header of each call; repeatable', {
      isRepeatable: true,
      isSecret: true,
      parse: parse.headers,
    }),
    secretHeaders: option('--header-file <path>', 'a file with secret headers, a line each: `name: value`', {
      file: 'lines of name: value',
      parse: parse.secretHeaders,
    }),
  }),
  group(API, ['run', 'worker', 'serve'], {
    token: option(
      '--token-file <path>',
      'a file with the token; there is no `--token`, since other users can see arguments',
      { env: 'DESCRIBE_API_TOKEN', file: 'the token' },
    ),
    submitMethod: option('--submit-method <m>', 'post or get; get puts the token into the URL', {
      default: 'post',
      parse: parse.oneOf(['post', 'get']),
    }),
    expireAfterMs: option(
      '--expire-after <duration>',
      'after how long the API gives up on a message, whose image is then submitted again',
      { default: "the API's: 12m" },
    ),
    model: option('--model <name>', 'openai: the model that describes (required there)'),
    prompt: option(
      '--prompt <text>',
      'openai: what the model is asked; `{{title}}` is that column of the row',
      { default: 'for four prompts, or for the fields' },
    ),
    promptFile: option('--prompt-file <path>', 'the same in a file', {
      file: 'what the model is to be asked',
    }),
    system: option('--system <text>', 'openai: the system message'),
    params: option(
      '--param <name=value>',
      'openai: a field of each request, such as temperature=0.2; repeatable',
      { isRepeatable: true, parse: parse.parameters },
    ),
    choices: option(
      '--choices <n>',
      'openai: 4 for four answers of one prompt each, 1 for one with all four',
      { default: '1', parse: parse.choices },
    ),
  }),
  group(API, ['run', 'worker', 'serve', 'reparse'], {
    count: option('--count <n>', 'openai: how many prompts an image gets; 1 makes one column `prompt`', {
      default: '4',
    }),
    fields: option(
      '--fields <list>',
      'openai: fields in place of prompts, each a column: `caption, tags[], nsfw:boolean`',
    ),
    schema: option('--schema <path>', 'openai: the same as a JSON Schema', { file: 'a JSON Schema' }),
  }),
  group(IMAGES, ['worker'], {
    imageRoot: option('--image-root <folder>', 'the only folder whose images it reads; without it, none'),
  }),
  group(IMAGES, ['run', 'worker', 'serve'], {
    send: option('--send <how>', 'url, data (the image itself) or auto: as the API takes it', {
      default: IMAGE_DEFAULTS.send,
      parse: parse.oneOf(['url', 'data', 'auto']),
    }),
    maxBytes: option(
      '--max-image-bytes <n>',
      'the largest image that is read, such as `5MB`; larger ones fail',
      {
        default: `${IMAGE_DEFAULTS.maxBytes / 1024 ** 2}MB`,
        parse: parse.bytes,
      },
    ),
    side: option('--image-side <pixels>', 'larger ones are made smaller before they are sent', {
      default: String(IMAGE_DEFAULTS.side),
      parse: parse.integer(16),
    }),
    followLinks: option('--follow-links', 'symbolic links may lead out of the folder of images'),
    serveImages: option(
      '--serve-images <host:port>',
      'serve local images here, to an API that takes URLs alone: only those that are submitted, read-only',
      { needs: { name: 'publicUrl', text: '--public-url <url>: what the API loads them from' } },
    ),
    publicUrl: option('--public-url <url>', 'the http(s) URL that leads there from the outside', {
      parse: parse.publicUrl,
      needs: { name: 'serveImages', text: '--serve-images <host:port>: where this process is to listen' },
    }),
    allowPrivate: option(
      '--allow-private',
      'fetch images from this machine and private networks too, where they are sent themselves',
    ),
  }),
  group(API, ['run', 'enqueue', 'schedule add'], {
    attempts: option('--attempts <n>', 'submits of one image at most', {
      default: String(RUN_DEFAULTS.attempts),
    }),
    deadlineMs: option('--deadline <duration>', 'from a submit to its completion', {
      default: `${RUN_DEFAULTS.deadlineMs / 60_000}m`,
    }),
  }),
  group(LIMITS, ['run', 'worker', 'serve', 'enqueue', 'schedule add'], {
    rate: option('--rate <n/duration>', 'submits, such as `1/3s`, `10/s` or `500/h`', {
      env: 'DESCRIBE_RATE',
      default: formatRate(DEFAULT_LIMITS.rate),
    }),
    pollRate: option('--poll-rate <n/duration>', 'polls', {
      env: 'DESCRIBE_POLL_RATE',
      default: formatRate(DEFAULT_LIMITS.pollRate),
    }),
    maxInFlight: option('--max-in-flight <n>', 'submitted and not yet completed', {
      env: 'DESCRIBE_MAX_IN_FLIGHT',
      default: String(DEFAULT_LIMITS.maxInFlight),
    }),
  }),
  group(LIMITS, ['run', 'enqueue', 'schedule add'], {
    limit: option('--limit <n>', 'images paid for in this run at most'),
  }),
  group(LIMITS, ['run'], {
    sample: option('--sample <n>', 'only n of the images, chosen at random and always the same', {
      onlyTyped: true,
    }),
  }),
  group(COSTS, ['run', 'enqueue', 'schedule add'], {
    usage: option('--usage', 'tokens of each row in the columns input_tokens and output_tokens'),
  }),
  group(COSTS, ['run', 'enqueue', 'schedule add', 'report'], {
    perMillionIn: option('--price-in <amount>', 'of a million input tokens, in whatever currency'),
    perMillionOut: option('--price-out <amount>', 'of a million output tokens'),
    perImage: option('--price <amount>', 'of an image'),
  }),
  group(COSTS, ['run', 'enqueue', 'schedule add'], {
    maxCost: option(
      '--max-cost <amount>',
      'stop when all starts of the run have cost that much (exit code 4)',
      { parse: parse.positive },
    ),
    maxCalls: option('--max-calls <n>', 'stop when they have made that many submits'),
  }),
  group(WEBHOOKS, ['run', 'worker', 'serve', 'webhook'], {
    webhookUrl: option(
      '--webhook-url <url>',
      'public URL of the receiver; the API gets it with a secret path',
      { parse: parse.publicUrl },
    ),
  }),
  group(WEBHOOKS, ['run', 'worker', 'serve'], {
    webhookListen: option(
      '--webhook-listen <host:port>',
      'receive in this process (else: `bulk-describe webhook`)',
      {
        needs: {
          name: 'webhookUrl',
          text: '--webhook-url <url>: the public URL that leads to it, which the API is given',
        },
      },
    ),
    webhookSecretFile: option('--webhook-secret-file <path>', 'what the secret path is made from', {
      ...WEBHOOK_SECRET,
      needs: { name: 'webhookUrl', text: '--webhook-url <url>, whose path is made from it' },
    }),
  }),
  group(WEBHOOKS, ['webhook'], {
    webhookListen: option('--webhook-listen <host:port>', 'where to listen', { default: '127.0.0.1:8787' }),
    webhookSecretFile: option('--webhook-secret-file <path>', "the workers' own, if any", WEBHOOK_SECRET),
    showUrl: option('--show-url', 'print the URL with the secret path, for a test or a proxy', {
      onlyTyped: true,
    }),
  }),
];
