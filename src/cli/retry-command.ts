import { type Retried, retryRun } from '../service/enqueue-run.js';
import { ONE_RUN_FLAGS, oneRun } from './cancel-command.js';
import { enqueueOptions, tellEnqueued } from './enqueue-command.js';
import { parseFlags } from './flags.js';
import { openSharedQueue, queueArgument } from './redis-queue.js';
import { interruptedOr, listenForSignals } from './signals.js';
import { printable, shellQuote } from './text.js';

/** `bulk-describe retry <run>`. @returns the exit code */
export async function retryCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('retry', argv, ONE_RUN_FLAGS, env);
  const run = oneRun('retry', flags.positionals);
  const connection = await openSharedQueue('retry', flags.get('queue'), env, {});
  const signals = listenForSignals(() => undefined);
  try {
    const retried = await retryRun(connection, run, enqueueOptions(connection, signals.signal));
    if (retried.kind !== 'marked')
      return tellEnqueued(retried, queueArgument(flags.get('queue'), env, connection));
    process.stdout.write(markedText(retried));
    return 0;
  } catch (error) {
    throw interruptedOr(error, signals.signal, 'interrupted: nothing was retried, or paid');
  } finally {
    signals.dispose();
    await connection.close();
  }
}

function markedText({ manifest, output }: Extract<Retried, { kind: 'marked' }>): string {
  const files = [manifest ?? '<its manifest>', '-o', shellQuote(output)].map((text) =>
    printable(text, Infinity),
  );
  return (
    'its next start takes all failed rows up again, the permanent ones too:\n' +
    `  bulk-describe run ${files.join(' ')}    (with the flags that it was started with)\n`
  );
}
