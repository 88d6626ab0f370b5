import type { Refusal } from './access.js';

/** A write that Bull Board offers. */
export interface BoardWrite {
  readonly method: string;
  /** Bull Board's pattern of it. */
  readonly route: string;
  /** The `:queueStatus` of "all jobs that are ...". */
  readonly status?: string | undefined;
  /** The state of the one job it is about. */
  readonly jobState?: string | undefined;
}

const ONE_JOB = '/api/queues/:queueName/:jobId';
const RETRY_ONE = `${ONE_JOB}/retry`;
const RETRY_ALL = '/api/queues/:queueName/retry/:queueStatus';
const ALWAYS_GOOD = new Set([
  `${ONE_JOB}/promote`,
  '/api/queues/:queueName/promote',
  '/api/queues/:queueName/pause',
  '/api/queues/:queueName/resume',
  '/api/queues/pause',
  '/api/queues/resume',
]);

/**
 * What may be changed from the board: failed images can be taken up again, waiting ones be brought forward, and the
 * taking of images be paused. Everything else that Bull Board offers could pay twice for an image (edited data, a
 * completed job done again), lose a row (removed jobs), or lift a limit of the account.
 * @returns why not, or undefined
 */
export function refuseWrite({ method, route, status, jobState }: BoardWrite): Refusal | undefined {
  if (method.toLowerCase() === 'get') return undefined;
  if (ALWAYS_GOOD.has(route)) return undefined;
  if (route === RETRY_ALL && status === 'failed') return undefined;
  if (route === RETRY_ONE && jobState === 'failed') return undefined;
  if (route === RETRY_ALL || route === RETRY_ONE) {
    return {
      status: 403,
      reason: 'only failed images can be taken up again: the others are waited for or paid',
    };
  }
  return {
    status: 403,
    reason: 'not from the board: it could pay for an image twice, lose a row or lift a limit',
  };
}
