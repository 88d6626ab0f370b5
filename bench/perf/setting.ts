import { join } from 'node:path';
import { z } from 'zod';
import { type Limits, type Rate, formatRate } from '../../src/shared/limits.js';
import { UndoStack } from '../../src/shared/undo.js';
import { startRedis } from '../../test/helpers/redis.js';
import { onAbandon } from '../chaos/abandon.js';
import { letGoFirst } from './priority.js';
import { CLI, type Command, type CommandEnd, type Helper, startCommand, startHelper } from './child.js';

/** Limits that limit nothing. */
export const UNLIMITED: Limits = {
  rate: { count: 100_000, perMs: 1000 },
  pollRate: { count: 100_000, perMs: 1000 },
  // Each is in flight for the 100 ms at least that lie before its first poll.
  maxInFlight: 1000,
};

const receiptSchema = z.looseObject({
  rows: z.number(),
  described: z.number(),
  copied: z.number(),
  resumed: z.number(),
  failed: z.number(),
  polls: z.number(),
  submits: z.number(),
  seconds: z.number(),
  balanced: z.boolean(),
});
export type BenchReceipt = z.infer<typeof receiptSchema>;

/** A Redis and a describe API, each a process of its own; workers and homes are started on them. */
export interface Setting {
  readonly queue: string;
  readonly api: string;
  readonly apiPid: number;
  /** The API has a processor whenever it wants one. */
  readonly isFirst: boolean;
  readonly redisPort: number;
  startWorkers(count: number, limits: Limits): Promise<Helper[]>;
  /** Starts a run; `args` come after manifest and output. */
  run(manifest: string, output: string, args: readonly string[]): Command;
  end(): Promise<void>;
}

export async function openSetting(api: {
  latencyMs?: number;
  latencySpread?: number;
  seed?: number;
  /** Lets the API have a processor whenever it wants one, where that is permitted. */
  isFirst?: boolean;
}): Promise<Setting> {
  const undo = new UndoStack();
  const redis = await startRedis();
  const forget = onAbandon(() => void redis.kill9());
  undo.defer(async () => {
    await redis.stop();
    forget();
  });
  const simulator = await startHelper('api.js', api);
  undo.defer(() => simulator.stop());
  const isFirst = api.isFirst === true && letGoFirst(simulator.pid);
  return {
    queue: redis.url,
    api: simulator.said,
    apiPid: simulator.pid,
    isFirst,
    redisPort: redis.port,
    async startWorkers(count, limits) {
      const about = { queue: redis.url, api: simulator.said, limits };
      const workers = await Promise.all(Array.from({ length: count }, () => startHelper('worker.js', about)));
      for (const worker of workers) undo.defer(() => worker.stop());
      return workers;
    },
    run: (manifest, output, args) =>
      startCommand(CLI, [
        ...['run', manifest, '-o', output, '--api', simulator.said, '--queue', redis.url],
        ...['--json', '--quiet', ...args],
      ]),
    end: () => undo.release(),
  };
}

/** The flags that say these limits. */
export function limitFlags({ rate, pollRate, maxInFlight }: Limits): string[] {
  const text = (given: Rate) => formatRate(given);
  return ['--rate', text(rate), '--poll-rate', text(pollRate), '--max-in-flight', String(maxInFlight)];
}

/** The receipt that a run ended with. @throws when it did not end well */
export function receiptOf(end: CommandEnd): BenchReceipt {
  if (end.code !== 0) throw new Error(`a run ended with ${end.code ?? 'a signal'}: ${end.stderr}`);
  const receipt = receiptSchema.parse(JSON.parse(end.stdout));
  if (!receipt.balanced) throw new Error('a receipt does not balance');
  return receipt;
}

/** A file in the part's folder. */
export function fileIn(folder: string, name: string): string {
  return join(folder, name);
}
