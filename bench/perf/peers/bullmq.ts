import { Queue } from 'bullmq';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { startHelper } from '../child.js';

const secondsSchema = z.object({ sinceAdded: z.number(), sinceFirst: z.number() });

/**
 * Bare BullMQ with empty jobs and one worker process: what the machine and Redis can do.
 * @param adding whether the jobs are there before the worker starts, or are added while it works
 * @param concurrency jobs that it processes at a time; BullMQ's default is one
 * @returns jobs per second
 */
export async function measureBullmq(
  url: string,
  jobs: number,
  adding: 'before' | 'meanwhile',
  concurrency = 200,
): Promise<number> {
  const name = `bare-${adding}-${concurrency}`;
  const { hostname, port } = new URL(url);
  const queue = new Queue(name, { connection: { host: hostname, port: Number(port) } });
  try {
    const add = async () => {
      const startedAt = Date.now();
      for (let from = 0; from < jobs; from += 500) {
        const count = Math.min(500, jobs - from);
        await queue.addBulk(Array.from({ length: count }, () => ({ name: 'empty', data: { startedAt } })));
      }
    };
    if (adding === 'before') await add();
    const done = startHelper('peers/bullmq-worker.js', { queue: url, name, jobs, concurrency });
    if (adding === 'meanwhile') {
      while ((await queue.getWorkersCount()) === 0) await delay(20);
      await add();
    }
    const worker = await done;
    const seconds = secondsSchema.parse(JSON.parse(worker.said));
    await worker.stop();
    return jobs / (adding === 'before' ? seconds.sinceFirst : seconds.sinceAdded);
  } finally {
    await queue.obliterate({ force: true });
    await queue.close();
  }
}
