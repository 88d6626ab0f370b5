import type { Redis } from 'ioredis';
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, type Helper, cpuSecondsOf } from './child.js';
import { readRedis } from './redis-info.js';

const CLOCK_EVERY_MS = 100;

/** Milliseconds of processor time an image, by who spent it. */
export type ProcessorTime = Readonly<Record<string, number>>;

/** What a run's images cost, looked at now and then until it ends: a coordinator takes its own clock with it. */
export async function processorTime(
  run: Command,
  images: number,
  others: { readonly workers: readonly Helper[]; readonly apiPid: number; readonly redis: Redis },
): Promise<ProcessorTime> {
  const { workers, apiPid, redis } = others;
  const read = async (): Promise<Record<string, number | undefined>> => ({
    coordinator: cpuSecondsOf(run.pid),
    workers: workers.reduce((sum, { pid }) => sum + (cpuSecondsOf(pid) ?? NaN), 0),
    'the API': cpuSecondsOf(apiPid),
    Redis: (await readRedis(redis)).cpuSeconds,
  });
  const before = await read();
  const latest = { ...before };
  let isOver = false;
  const ended = run.ended.finally(() => (isOver = true));
  while (!isOver) {
    for (const [who, seconds] of Object.entries(await read())) latest[who] = seconds ?? latest[who];
    await Promise.race([delay(CLOCK_EVERY_MS), ended]);
  }
  return Object.fromEntries(
    Object.entries(latest).map(([who, seconds]) => [
      who,
      (((seconds ?? NaN) - (before[who] ?? 0)) * 1000) / images,
    ]),
  );
}
