import * as registry from '../shared/queue/registry.js';
import { workersOf } from '../shared/published.js';
import { readLostSubmits } from '../shared/run-counts.js';
import { dropRunOrder, readRunOrders } from '../shared/run-leases.js';
import type { OpenRun } from './open-run.js';

/**
 * Takes up what earlier starts of a run have left in the queue: results first, then jobs. Nobody has begun to work for this
 * start yet.
 */
export async function recover(run: OpenRun): Promise<void> {
  const { connection, control, options, ledger, lookup, jobs, results } = run;
  const { store } = connection;
  // Of an earlier start.
  await dropRunOrder(store, run.id, 'cancel');
  const { retryAll } = await readRunOrders(store, run.id);
  lookup.retriesAll ||= retryAll;
  const { maybePaidTwice, rescued } = await readLostSubmits(store, run.id);
  ledger.counts.maybePaidTwice += maybePaidTwice;
  ledger.counts.rescued += rescued;
  await results.takeBack(control.signal);
  await results.drained(control.signal);
  const living = await registry.listLiving(store, workersOf(run.queueName));
  const count = await jobs.reclaim((worker) => living.has(worker));
  if (count > 0) run.emit({ type: 'phase', text: `taking over ${count} image(s) of a worker that has died` });
  const abandoned = await jobs.findAbandoned();
  if (abandoned > 0) run.emit({ type: 'notice', text: abandonedText(abandoned) });
  // They come again with their rows, in their order and within --limit, unless their rows are gone.
  await jobs.removeNeedless((image) => lookup.isDescribed(image) || ledger.isAnswered(image));
  await jobs.promoteDelayed();
  await jobs.takeUpSetAside(() => undefined);
  for (const [image, job] of await jobs.leftOver()) {
    if (lookup.isDescribed(image)) continue;
    // Whoever pays for nothing new waits for all that somebody has put into the queue.
    if (job.state === 'waiting' && options.collectOnly === true)
      ledger.find(image, { ...job, state: 'paid' });
    else ledger.find(image, job);
  }
  ledger.begin();
}

function abandonedText(count: number): string {
  return `${count} image(s) were submitted for runs that nobody runs any more: those that are in this manifest too are paid for once more, and counted as maybePaidTwice`;
}
