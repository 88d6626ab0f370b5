import { type Cancelled, cancelRun } from '../service/cancel-run.js';
import { unlessAborted } from '../shared/waiting.js';
import type { OptionsOf } from './options.js';
import { withSharedQueue } from './process.js';
import { plural, printable } from './text.js';

/** `bulk-describe cancel <run>`. @returns 0 */
export async function cancel({ queue }: OptionsOf<'cancel'>, run: string): Promise<number> {
  const interrupted = `interrupted: whether ${run} is cancelled is seen with \`bulk-describe status\``;
  const cancelled = await withSharedQueue(
    'cancel',
    queue,
    (connection, signal) => unlessAborted(cancelRun(connection, run, signal), signal),
    interrupted,
  );
  process.stdout.write(`${printable(cancelledLine(cancelled), Infinity)}\n`);
  return 0;
}

function cancelledLine(cancelled: Cancelled): string {
  const { output } = cancelled;
  switch (cancelled.kind) {
    case 'winding-down':
      return `cancelled: ${output}: nothing more is submitted; what is in flight is finished and kept`;
    case 'taken-out':
      return `cancelled: ${output}: it was waiting for a server, and is out of the queue`;
    case 'to-be-collected':
      return (
        `cancelled: ${output}: nothing more is submitted; ${plural(cancelled.images, 'image')} in flight ` +
        `${cancelled.images === 1 ? 'is' : 'are'} kept by the next server, which \`bulk-describe serve\` starts`
      );
    case 'abandoned':
      return (
        `cancelled: ${output}: its coordinator is gone; ${plural(cancelled.removed, 'unsubmitted image')} left the ` +
        'queue, and what is in flight is kept for the next start'
      );
  }
}
