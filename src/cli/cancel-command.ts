import { type Cancelled, cancelRun } from '../service/cancel-run.js';
import { UsageError } from '../shared/errors.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { type FlagTable, parseFlags } from './flags.js';
import { openSharedQueue } from './redis-queue.js';
import { OUTPUT_FLAGS } from './run-flags.js';
import { interruptedOr, listenForSignals } from './signals.js';
import { plural, printable } from './text.js';

/** Flags of the commands that do something to one run. */
export const ONE_RUN_FLAGS = {
  queue: { takes: 'value', env: 'QUEUE_URL' },
  help: OUTPUT_FLAGS.help,
} as const satisfies FlagTable;

/** `bulk-describe cancel <run>`. @returns 0 */
export async function cancelCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('cancel', argv, ONE_RUN_FLAGS, env);
  const run = oneRun('cancel', flags.positionals);
  const connection = await openSharedQueue('cancel', flags.get('queue'), env, {});
  const signals = listenForSignals(() => undefined);
  try {
    const cancelled = await unlessAborted(cancelRun(connection, run, signals.signal), signals.signal);
    process.stdout.write(`${printable(cancelledLine(cancelled), Infinity)}\n`);
    return 0;
  } catch (error) {
    const text = `interrupted: whether ${run} is cancelled is seen with \`bulk-describe status\``;
    throw interruptedOr(error, signals.signal, text);
  } finally {
    signals.dispose();
    await connection.close();
  }
}

/** The run that a command names, by its id or its output's path. @throws {UsageError} for none or several */
export function oneRun(command: string, positionals: readonly string[]): string {
  const [run, extra] = positionals;
  if (run === undefined || extra !== undefined) {
    throw new UsageError(
      `${command} takes one run, by its id or its output's path: bulk-describe ${command} <run>`,
    );
  }
  return run;
}

function cancelledLine(cancelled: Cancelled): string {
  const { output } = cancelled;
  switch (cancelled.kind) {
    case 'winding-down':
      return `cancelled: ${output}: nothing more is submitted; what is in flight is finished and kept`;
    case 'taken-out':
      return `cancelled: ${output}: it was waiting for a home, and is out of the queue`;
    case 'to-be-collected':
      return (
        `cancelled: ${output}: nothing more is submitted; ${plural(cancelled.images, 'image')} in flight ` +
        `${cancelled.images === 1 ? 'is' : 'are'} kept by the next home, which \`bulk-describe serve\` starts`
      );
    case 'homeless':
      return (
        `cancelled: ${output}: its home is gone; ${plural(cancelled.removed, 'unsubmitted image')} left the queue, ` +
        'and what is in flight is kept for the next start'
      );
  }
}
