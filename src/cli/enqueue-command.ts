import { type EnqueueOptions, type Enqueued, enqueueRun } from '../service/enqueue-run.js';
import { UsageError } from '../shared/errors.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { parseFlags } from './flags.js';
import { openSharedQueue, queueArgument } from './redis-queue.js';
import { REQUEST_FLAGS, requestOf } from './request-flags.js';
import { listenForSignals } from './signals.js';
import { plural, printable } from './text.js';

const INTERRUPTED = 130;

/** `bulk-describe enqueue <manifest>`: returns when a home has opened both files. @returns the exit code */
export async function enqueueCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('enqueue', argv, REQUEST_FLAGS, env);
  const [manifest, extra] = flags.positionals;
  if (manifest === undefined) {
    throw new UsageError('enqueue needs a manifest: bulk-describe enqueue <manifest> -o <output>');
  }
  if (extra !== undefined) throw new UsageError(`enqueue takes one manifest, and ${extra} is a second one`);
  const request = requestOf(manifest, flags);
  const connection = await openSharedQueue('enqueue', flags.get('queue'), env, {});
  const signals = listenForSignals(() => undefined);
  try {
    const options = enqueueOptions(connection, signals.signal);
    const queue = queueArgument(flags.get('queue'), env, connection);
    return tellEnqueued(await enqueueRun(connection, request, options), queue);
  } finally {
    signals.dispose();
    await connection.close();
  }
}

/** How the commands that hand runs to homes wait: they say what for, also when the queue is away. */
export function enqueueOptions(connection: QueueConnection, signal: AbortSignal): EnqueueOptions {
  const say = (text: string) => process.stderr.write(`${printable(text, 500)}\n`);
  connection.onTrouble((...trouble) => say(troubleText(...trouble)));
  const onWaiting = (homes: number) =>
    say(`waiting for one of ${plural(homes, 'home')}: Ctrl-C takes the request out of the queue again`);
  return { signal, onWaiting };
}

/**
 * What became of a request, for people.
 * @param queue what the commands that it shows need to reach the same queue
 * @returns the exit code
 */
export function tellEnqueued(enqueued: Enqueued, queue: string): number {
  switch (enqueued.kind) {
    case 'begun':
      process.stdout.write(
        `run       ${printable(enqueued.run)}\nmanifest  ${printable(enqueued.manifest, Infinity)}\n` +
          `output    ${printable(enqueued.output, Infinity)}\n` +
          `watch     bulk-describe status ${printable(enqueued.run)} --watch${queue}\n`,
      );
      return 0;
    case 'taken-back':
      process.stderr.write('taken out of the queue again: nothing was begun or paid\n');
      return INTERRUPTED;
    case 'left':
      process.stderr.write(
        `a home has just taken it up, and goes on: stop it with \`bulk-describe cancel ${enqueued.job}${queue}\`\n`,
      );
      return INTERRUPTED;
    case 'unknown':
      process.stderr.write(
        'the queue does not answer, and the request may still be in it: when it is back, ' +
          `take it out with \`bulk-describe cancel ${enqueued.job}${queue}\`\n`,
      );
      return INTERRUPTED;
  }
}
