import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describeQueueName } from '../../src/shared/account.js';
import { accountOf } from '../../src/run/api-options.js';
import type { DescribeJobData, ResultJobData } from '../../src/shared/jobs.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { startRedis } from '../../test/helpers/redis.js';
import { onAbandon } from './abandon.js';
import type { EmptyQueue } from './empty-queue.js';
import type { QueueKind } from './plan.js';

/** What a job in the queue says of the submits that may have been paid for in vain. */
export interface JobAccount {
  /** The job's id and the time it was made: a failed job that is taken up again is another one. */
  readonly name: string;
  readonly url: string;
  readonly maybePaid: number;
}

/** The queue of one round. */
export interface RoundQueue {
  /** For `--queue`. */
  readonly url: string;
  /** Ends the server as a crash would, and brings it back; an embedded queue has none. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Looks at all jobs, while nobody works; changes nothing. */
  jobs(api: string): Promise<JobAccount[]>;
  remove(): Promise<void>;
}

/** A queue of the round's own, empty or still to be made. */
export async function createRoundQueue(
  { queue, newQueue }: { readonly queue: QueueKind; readonly newQueue: boolean },
  folder: string,
  emptyQueue: EmptyQueue,
): Promise<RoundQueue> {
  if (queue === 'redis') return createRedis();
  const directory = join(folder, 'queue');
  if (!newQueue) await emptyQueue.copyTo(directory);
  return embeddedQueue(directory, folder);
}

async function createRedis(): Promise<RoundQueue> {
  // With `everysec`, a server that crashes while it is syncing may lose what it has acknowledged.
  const redis = await startRedis('--appendfsync', 'always');
  const forget = onAbandon(() => void redis.kill9());
  return {
    url: redis.url,
    kill: () => redis.kill9(),
    restart: () => redis.restart(),
    jobs: (api) => readJobs(redis.url, api),
    async remove() {
      await redis.stop();
      forget();
    },
  };
}

function embeddedQueue(directory: string, folder: string): RoundQueue {
  const nothing = () => Promise.resolve();
  return {
    url: `embedded:${directory}`,
    kill: nothing,
    restart: nothing,
    async jobs(api) {
      const data = join(directory, 'pgdata');
      if (!existsSync(data)) return [];
      // Of a copy: opening a database repairs it, and that is left to the program that is tested.
      const copy = join(folder, 'queue-copy');
      mkdirSync(copy);
      cpSync(data, join(copy, 'pgdata'), { recursive: true });
      try {
        return await readJobs(`embedded:${copy}`, api);
      } finally {
        rmSync(copy, { recursive: true, force: true });
      }
    },
    remove: nothing,
  };
}

async function readJobs(url: string, api: string): Promise<JobAccount[]> {
  const connection = await openQueue(parseQueueUrl(url, {}));
  try {
    const queue = connection.queue<DescribeJobData, ResultJobData>(describeQueueName(accountOf({ api })));
    const completed = await queue.getJobs(['completed']);
    const others = await queue.getJobs(['waiting', 'active', 'delayed', 'prioritized', 'failed']);
    const account = ({ id = '', timestamp, data }: (typeof others)[number], maybePaid: number) => {
      return { name: `${id}@${timestamp}`, url: data.url, maybePaid };
    };
    return [
      ...completed.map((job) => account(job, job.returnvalue.maybePaid)),
      ...others.map((job) => account(job, job.data.maybePaid)),
    ];
  } finally {
    await connection.close();
  }
}
