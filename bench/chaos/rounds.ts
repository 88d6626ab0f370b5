import pLimit from 'p-limit';
import { removeLeftClocks } from '../../test/helpers/clock.js';
import { EmptyQueue } from './empty-queue.js';
import { type QueueKind, planRound } from './plan.js';
import { type RoundResult, runRound } from './round.js';

export interface RoundsOptions {
  readonly rounds: number;
  /** Each round's own seed is made of this one, its number and its queue. */
  readonly seed: number;
  readonly queues: readonly QueueKind[];
  /** Only the round of this number. */
  readonly only?: number | undefined;
  /** Rounds at a time. */
  readonly atOnce: number;
  /** Path of the built command line. */
  readonly cli: string;
  /** Directory of an empty embedded queue to copy; without one it is made first. */
  readonly emptyQueue?: string | undefined;
  readonly onRound: (number: number, result: RoundResult) => void;
}

/**
 * Runs rounds, in turn on each queue.
 * @returns their results, in their order
 * @throws when a round could not be run or counted, with its folder
 */
export async function runRounds(options: RoundsOptions): Promise<RoundResult[]> {
  const limit = pLimit(options.atOnce);
  const numbers = Array.from({ length: options.rounds }, (_, index) => index + 1);
  const wanted = options.only === undefined ? numbers : [options.only];
  const emptyQueue = new EmptyQueue(options.emptyQueue);
  const runOne = async (number: number) => {
    const queue = options.queues[number % options.queues.length] ?? 'embedded';
    const result = await runRound(planRound(options.seed * 100_003 + number, queue), {
      cli: options.cli,
      emptyQueue,
    });
    options.onRound(number, result);
    return result;
  };
  try {
    return await Promise.all(wanted.map((number) => limit(() => runOne(number))));
  } finally {
    await emptyQueue.remove();
    removeLeftClocks();
  }
}
