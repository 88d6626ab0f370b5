// A process of its own: a bare BullMQ worker that does nothing with its jobs, and tells when it has done them all.
import { Worker } from 'bullmq';
import { readAbout } from '../read-about.js';

const { queue, name, jobs, concurrency } = readAbout();
const { hostname, port } = new URL(queue);
let done = 0;
let firstAt = 0;
const worker = new Worker<{ startedAt: number }>(
  name,
  (job) => {
    firstAt ||= Date.now();
    if (++done === jobs) {
      // Its own end is still to be told to Redis, which is one of many.
      const since = (time: number) => (Date.now() - time) / 1000;
      process.send?.(JSON.stringify({ sinceFirst: since(firstAt), sinceAdded: since(job.data.startedAt) }));
    }
    return Promise.resolve(null);
  },
  {
    connection: { host: hostname, port: Number(port), maxRetriesPerRequest: null },
    concurrency,
    removeOnComplete: { count: 1000 },
  },
);
process.on('disconnect', () => void worker.close().then(() => process.exit()));
