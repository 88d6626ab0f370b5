import { type Dialect, dialectFor } from '../describe-api/dialects/index.js';
import { UsageError } from '../shared/errors.js';
import { parseDuration, parseRate, perSecond } from '../shared/durations.js';
import type { Limits } from '../shared/limits.js';
import { LOG_LEVELS, type LogLevel } from '../shared/log.js';
import { ERROR_CODES, type ErrorCode } from '../shared/outcome.js';
import { type ManifestFormat, parseDelimiter } from '../producer/manifest.js';
import type { ApiOptions } from '../run/api-options.js';
import type { RunOptions } from '../run/run-options.js';
import { API_FLAGS, CALL_FLAGS, apiOptionsOf } from './api-flags.js';
import { DASHBOARD_FLAG } from './dashboard-flags.js';
import type { Flag, FlagTable, ParsedFlags } from './flags.js';
import { WEBHOOK_FLAGS, webhooksOf } from './webhook-flags.js';

/** Which rows there are and where they go: what `run` and `verify` have in common. */
export const MANIFEST_FLAGS = {
  format: { takes: 'value' },
  delimiter: { takes: 'value' },
  'url-column': { takes: 'value' },
  'key-column': { takes: 'value' },
  'base-url': { takes: 'value' },
} as const satisfies FlagTable;

/** The API, the account, the queue and the limits. */
export const ACCOUNT_FLAGS = {
  ...API_FLAGS,
  ...CALL_FLAGS,
  ...WEBHOOK_FLAGS,
  queue: { takes: 'value', env: 'QUEUE_URL' },
  rate: { takes: 'value', env: 'DESCRIBE_RATE' },
  'poll-rate': { takes: 'value', env: 'DESCRIBE_POLL_RATE' },
  'max-in-flight': { takes: 'value', env: 'DESCRIBE_MAX_IN_FLIGHT' },
} as const satisfies FlagTable;

export const OUTPUT_FLAGS = {
  json: { takes: 'nothing' },
  quiet: { takes: 'nothing' },
  'no-progress': { takes: 'nothing' },
  'log-level': { takes: 'value', env: 'LOG_LEVEL' },
  help: { takes: 'nothing', short: 'h' },
} as const satisfies FlagTable;

/** What a run is to do, whoever executes it. */
export const TASK_FLAGS = {
  output: { takes: 'value', short: 'o' },
  attempts: { takes: 'value' },
  deadline: { takes: 'value' },
  limit: { takes: 'value' },
  accept: { takes: 'value' },
  'stop-failing': { takes: 'value' },
  'new-columns': { takes: 'nothing' },
  'pay-again': { takes: 'value' },
} as const satisfies FlagTable;

export const RUN_FLAGS = {
  ...MANIFEST_FLAGS,
  ...ACCOUNT_FLAGS,
  ...OUTPUT_FLAGS,
  ...TASK_FLAGS,
  ...DASHBOARD_FLAG,
  'dry-run': { takes: 'nothing' },
  'no-work': { takes: 'nothing' },
} as const satisfies FlagTable;

type RunFlags = ParsedFlags<typeof RUN_FLAGS>;

const FORMATS: readonly ManifestFormat[] = ['csv', 'tsv', 'jsonl', 'list'];

/** Turns the flags of `run` into options. @throws {UsageError} flag, value, and what is expected */
export function runOptionsOf(manifest: string, flags: RunFlags, env: NodeJS.ProcessEnv): RunOptions {
  return {
    manifest,
    ...manifestOptionsOf(flags),
    ...accountOptionsOf(flags, env),
    ...taskOptionsOf(flags),
    queue: flags.get('queue'),
    dryRun: flags.has('dry-run'),
    work: !flags.has('no-work'),
    env,
  };
}

/** The options that tell what a run is to do, whoever executes it. */
export function taskOptionsOf(flags: ParsedFlags<typeof TASK_FLAGS>) {
  const deadline = flags.get('deadline');
  return {
    output: flags.get('output'),
    attempts: flags.integer('attempts', 1),
    deadlineMs: deadline === undefined ? undefined : parseDuration(deadline, '--deadline'),
    limit: flags.integer('limit', 1),
    accept: parseCodes(flags.get('accept')),
    stopFailing: parsePercent(flags.get('stop-failing')),
    newColumns: flags.has('new-columns'),
    payAgain: flags.integer('pay-again', 0),
  };
}

/** The options that tell whose API is called, how, and how fast: of all commands that work. */
export function accountOptionsOf(
  flags: ParsedFlags<typeof ACCOUNT_FLAGS>,
  env: NodeJS.ProcessEnv,
): ApiOptions & Pick<RunOptions, 'limits'> {
  return { ...apiOptionsOf(flags, env), limits: limitsOf(flags), webhooks: webhooksOf(flags, env) };
}

/** The options that tell how a manifest is read. */
export function manifestOptionsOf(
  flags: ParsedFlags<typeof MANIFEST_FLAGS>,
): Pick<RunOptions, 'format' | 'delimiter' | 'urlColumn' | 'keyColumn' | 'baseUrl'> {
  const delimiter = flags.get('delimiter');
  return {
    format: parseFormat(flags.get('format')),
    delimiter: delimiter === undefined ? undefined : parseDelimiter(delimiter),
    urlColumn: flags.get('url-column'),
    keyColumn: flags.get('key-column'),
    baseUrl: flags.get('base-url'),
  };
}

/** Limits that were given explicitly. */
export function limitsOf(
  flags: ParsedFlags<Readonly<Record<'rate' | 'poll-rate' | 'max-in-flight', Flag>>>,
): Partial<Limits> {
  const rate = flags.get('rate');
  const pollRate = flags.get('poll-rate');
  const maxInFlight = flags.integer('max-in-flight', 1);
  return {
    ...(rate !== undefined && { rate: parseRate(rate, flags.source('rate')) }),
    ...(pollRate !== undefined && {
      pollRate: parseRate(pollRate, flags.source('poll-rate')),
    }),
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

/** The level to log at. @throws {UsageError} for an unknown one */
export function parseLogLevel(text: string | undefined): LogLevel {
  if (text === undefined) return 'warn';
  const level = LOG_LEVELS.find((known) => known === text);
  if (level === undefined)
    throw new UsageError(`--log-level ${text}: expected one of ${LOG_LEVELS.join(', ')}`);
  return level;
}

function parseFormat(text: string | undefined): ManifestFormat | undefined {
  if (text === undefined) return undefined;
  const format = FORMATS.find((known) => known === text);
  if (format === undefined) throw new UsageError(`--format ${text}: expected one of ${FORMATS.join(', ')}`);
  return format;
}

function parsePercent(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const percent = Number(text.replace(/%$/, ''));
  if (!/^\d+(\.\d+)?%?$/.test(text) || percent > 100) {
    throw new UsageError(`--stop-failing ${text}: expected a percentage from 0 to 100`);
  }
  return percent;
}

function parseCodes(text: string | undefined): ErrorCode[] {
  if (text === undefined) return [];
  return text.split(',').map((part) => {
    const code = ERROR_CODES.find((known) => known === part.trim());
    if (code === undefined) {
      throw new UsageError(`--accept ${part.trim()}: expected codes among ${ERROR_CODES.join(', ')}`);
    }
    return code;
  });
}
