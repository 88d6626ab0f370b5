import { resultsQueueName } from '../shared/account.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { RUNS, runState, type RunStatus } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { busyQueues } from './accounts.js';
import { nearName } from './run-names.js';

/** A queue that is to be seen on the board. */
export interface BoardQueue {
  readonly name: string;
  readonly kind: 'runs' | 'describe' | 'results';
  /** Shown instead of its name. */
  readonly title?: string;
  readonly description: string;
}

/** The queues of the moment: the runs, the accounts' images, and the results of runs that are going on. */
export async function boardQueues(connection: QueueConnection, nowMs: number): Promise<BoardQueue[]> {
  const runs = await registry.list(connection.store, RUNS);
  const accounts = await busyQueues(connection.store, runs);
  return [
    {
      name: RUNS_QUEUE,
      kind: 'runs',
      description: 'Runs that homes execute: enqueued or scheduled. To look at only.',
    },
    ...[...accounts].map(([name, label]) => ({
      name,
      kind: 'describe' as const,
      description: `Images of ${label}`,
    })),
    ...runs
      .filter((run) => runState(run, nowMs) !== 'ended')
      .map((run) => ({
        name: resultsQueueName(run.run),
        kind: 'results' as const,
        title: `results of ${outputOf(run)}`,
        description: `Outcomes on their way to ${outputOf(run)}`,
      })),
  ];
}

function outputOf(run: RunStatus): string {
  return nearName(run.output);
}
