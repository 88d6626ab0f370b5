import { type RunRequest, readRequest } from '../service/run-request.js';
import { UsageError } from '../shared/errors.js';
import type { FlagTable, ParsedFlags } from './flags.js';
import {
  MANIFEST_FLAGS,
  OUTPUT_FLAGS,
  TASK_FLAGS,
  limitsOf,
  manifestOptionsOf,
  taskOptionsOf,
} from './run-flags.js';

/**
 * What a request for a home can say. The environment does not speak for the home: what is not typed is what the home
 * has, but for the queue, through which it is reached.
 */
export const REQUEST_FLAGS = {
  ...MANIFEST_FLAGS,
  ...TASK_FLAGS,
  api: { takes: 'value' },
  account: { takes: 'value' },
  dialect: { takes: 'value' },
  rate: { takes: 'value' },
  'poll-rate': { takes: 'value' },
  'max-in-flight': { takes: 'value' },
  queue: { takes: 'value', env: 'QUEUE_URL' },
  help: OUTPUT_FLAGS.help,
} as const satisfies FlagTable;

/**
 * Turns the flags of `enqueue` and `schedule add` into a request.
 * @throws {UsageError} flag, value, and what is expected
 */
export function requestOf(manifest: string, flags: ParsedFlags<typeof REQUEST_FLAGS>): RunRequest {
  if (manifest === '-') throw new UsageError('a home reads its own files, not stdin: name a manifest there');
  const limits = limitsOf(flags);
  const request = {
    manifest,
    ...manifestOptionsOf(flags),
    ...taskOptionsOf(flags),
    api: flags.get('api'),
    account: flags.get('account'),
    dialect: flags.get('dialect'),
    limits: Object.keys(limits).length > 0 ? limits : undefined,
  };
  return readRequest(request);
}
