import { cancelledText } from '../dashboard/texts.js';
import { cancelRun } from '../service/cancel-run.js';
import { type Enqueued, enqueueRun, retryRun } from '../service/enqueue-run.js';
import { type RunRequest, readRequest, runRequestSchema } from '../service/run-request.js';
import { UsageError } from '../shared/errors.js';
import { plural } from '../shared/plural.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { unlessAborted } from '../shared/waiting.js';
import type { OptionsOf } from './options.js';
import { limitsOf, pricesOf } from './settings.js';
import { INTERRUPTED, type Service, withSharedQueue } from './process.js';
import { fields, passwordNote, print, printable, shellQuote } from './text.js';

/** `bulk-describe enqueue <manifest...>`: returns when a server has opened both files. @returns the exit code */
export function enqueue(options: OptionsOf<'enqueue'>, ...manifests: string[]): Promise<number> {
  const request = requestOf(options, manifests);
  const { queue } = options;
  return withSharedQueue({ command: 'enqueue', queue }, (service) => executeRequest(service, request, queue));
}

/** Turns the options of `enqueue` and `schedule add` into a request. @throws {UsageError} */
export function requestOf(
  options: OptionsOf<'enqueue'>,
  [manifest = '', ...more]: readonly string[],
): RunRequest {
  if ([manifest, ...more].includes('-'))
    throw new UsageError('a server reads its own files, not stdin: name a manifest there');
  const limits = limitsOf(options);
  const given: Readonly<Record<string, unknown>> = {
    ...{ accept: [], newColumns: false, ...options, manifest, prices: pricesOf(options) },
    // A server of another version refuses what it does not know.
    moreManifests: more.length > 0 ? more : undefined,
    header: options.header ? undefined : false,
    limits: Object.keys(limits).length > 0 ? limits : undefined,
  };
  return readRequest(
    Object.fromEntries(Object.keys(runRequestSchema.shape).map((name) => [name, given[name]])),
  );
}

/** Has a server execute a request, and reports what becomes of it. @returns the exit code */
export async function executeRequest(
  service: Service,
  request: RunRequest,
  queue: string | undefined,
): Promise<number> {
  const { connection } = service;
  const enqueued = await enqueueRun(connection, request, enqueueOptions(service));
  return reportEnqueued(enqueued, connection, queue);
}

/** How the commands that wait for a server do so: they say what they wait for, also when the queue is away. */
function enqueueOptions({ connection, signal }: Service) {
  const say = (text: string) => process.stderr.write(`${printable(text, 500)}\n`);
  connection.outage.on((...trouble) => say(troubleText(...trouble)));
  const onWaiting = (servers: number) =>
    say(`waiting for one of ${plural(servers, 'server')}: Ctrl-C takes the request out of the queue again`);
  return { signal, onWaiting };
}

/** Says what became of a request. @param given the queue's URL, if one was given @returns the exit code */
function reportEnqueued(enqueued: Enqueued, { label }: QueueConnection, given: string | undefined): number {
  // What the commands that are shown need to reach the same queue; nothing where the environment names it.
  const isNamed = given !== undefined && given !== process.env['QUEUE_URL'];
  const queue = isNamed ? ` --queue ${shellQuote(label)}` : '';
  const note = isNamed ? passwordNote([given]) : '';
  if (enqueued.kind === 'begun') {
    print(
      ...fields(
        ['run', printable(enqueued.run)],
        ['manifest', enqueued.manifest],
        ['output', enqueued.output],
        ['watch', `bulk-describe status ${printable(enqueued.run)} --watch${queue}${note}`],
      ),
    );
    return 0;
  }
  const job = 'job' in enqueued ? enqueued.job : '';
  const cancelling = `\`bulk-describe cancel ${job}${queue}\`${note}`;
  const texts = {
    'taken-back': 'taken out of the queue again: nothing was begun or paid',
    left: `a server has just taken it up, and goes on: stop it with ${cancelling}`,
    unknown: `the queue does not answer, and the request may still be in it: when it is back, take it out with ${cancelling}`,
  };
  process.stderr.write(`${texts[enqueued.kind]}\n`);
  return INTERRUPTED;
}

/** `bulk-describe retry <run>`. @returns the exit code */
export function retry({ queue }: OptionsOf<'retry'>, run: string): Promise<number> {
  const about = { command: 'retry', queue, interrupted: 'interrupted: nothing was retried, or paid' };
  return withSharedQueue(about, async (service) => {
    const { connection } = service;
    const retried = await retryRun(connection, run, enqueueOptions(service));
    if (retried.kind !== 'marked') return reportEnqueued(retried, connection, queue);
    const files = [retried.manifest ?? '<its manifest>', '-o', shellQuote(retried.output)].join(' ');
    print(
      'its next start takes all failed rows up again, the permanent ones too:',
      `  bulk-describe run ${files}    (with the flags that it was started with)`,
    );
    return 0;
  });
}

/** `bulk-describe cancel <run>`. @returns 0 */
export async function cancel({ queue }: OptionsOf<'cancel'>, run: string): Promise<number> {
  const interrupted = `interrupted: whether ${run} is cancelled is seen with \`bulk-describe status\``;
  const cancelled = await withSharedQueue(
    { command: 'cancel', queue, interrupted },
    ({ connection, signal }) => unlessAborted(cancelRun(connection, run, signal), signal),
  );
  print(cancelledText(cancelled));
  return 0;
}
