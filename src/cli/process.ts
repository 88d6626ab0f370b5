import { once } from 'node:events';
import { RUN_DEFAULTS, type Companion } from '../run/run-options.js';
import { InterruptedEarlyError, UsageError } from '../shared/errors.js';
import type { RootFolder } from '../service/root-folder.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { UndoStack } from '../shared/undo.js';
import type { Terminal } from './terminal.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export const INTERRUPTED = 130;

/** What comes so soon after the first signal is the same one: npx passes on a Ctrl-C that the terminal has sent to both. */
const SAME_SIGNAL_MS = 500;

/** Turns the first interrupt into an abort; the second one ends the process at once, unless it is SIGHUP. */
export function listenForSignals(onFirst?: (name: string) => void): {
  readonly signal: AbortSignal;
  readonly dispose: () => void;
} {
  const controller = new AbortController();
  let firstAt = 0;
  const listener = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) {
      // Who closes a terminal sends it once and means it twice: its shell passes it on, and then the system sends it.
      if (name === 'SIGHUP' || performance.now() - firstAt < SAME_SIGNAL_MS) return;
      process.exit(INTERRUPTED);
    }
    firstAt = performance.now();
    onFirst?.(name === 'SIGINT' ? 'Ctrl-C' : name);
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, listener);
  return {
    signal: controller.signal,
    dispose: () => {
      for (const name of SIGNALS) process.off(name, listener);
    },
  };
}

export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}

/** What a command on a shared queue has. Its undos are done, the last first, when it ends. */
export interface Service {
  readonly connection: QueueConnection;
  readonly undo: UndoStack;
  /** Aborts when it is to stop. */
  readonly signal: AbortSignal;
}

interface SharedQueueOptions {
  /** Its name, for errors. */
  readonly command: string;
  /** `--queue`, or what stands in for it. */
  readonly queue: string | undefined;
  readonly logger?: Logger;
  /** It only looks, also at a queue that takes no writes. */
  readonly isReader?: boolean;
  /** What the first signal leaves undone, for people; without it the work itself ends with the signal. */
  readonly interrupted?: string;
  readonly onSignal?: (name: string) => void;
}

/**
 * Does something on a queue that several processes share; it ends by itself, or with the first signal.
 * @throws {UsageError} for the embedded queue, which one process has for itself
 * @throws {FatalError} when Redis is not there
 */
export async function withSharedQueue<T>(
  { command, queue, logger, isReader, interrupted, onSignal }: SharedQueueOptions,
  work: (service: Service) => Promise<T>,
): Promise<T> {
  const target = parseQueueUrl(queue ?? RUN_DEFAULTS.queue, process.env);
  if (target.kind === 'embedded') {
    throw new UsageError(
      `${command} needs a queue that several processes share: give one with --queue redis://<host> or QUEUE_URL ` +
        '(`docker compose up -d redis` starts one at redis://localhost:6379); the embedded queue belongs to one process ' +
        '(`run --dashboard` shows it)',
    );
  }
  const undo = new UndoStack();
  const { signal, dispose } = listenForSignals(onSignal);
  undo.defer(dispose);
  try {
    const { openQueue } = await import('../shared/queue/connection.js');
    const connection = await openQueue(target, { logger, isReader, isShared: true });
    undo.defer(() => connection.close());
    return await work({ connection, undo, signal });
  } catch (error) {
    const isSignal = signal.aborted && error === signal.reason;
    throw isSignal && interrupted !== undefined ? new InterruptedEarlyError(interrupted) : error;
  } finally {
    await undo.release();
  }
}

/**
 * Opens the queue, starts what there is to start, and waits for the first signal.
 * @param about `goodbye` is what it does when it is stopped, for people, where that takes time
 * @returns 0
 */
export function runUntilStopped(
  about: Pick<SharedQueueOptions, 'command' | 'queue' | 'isReader'> & {
    readonly companions: readonly Companion[];
    /** Real paths of the folders whose images may be read. */
    readonly imageRoots?: readonly string[];
    /** The folder whose outputs may be read. */
    readonly root?: RootFolder | undefined;
    readonly goodbye?: string;
  },
  terminal: Terminal,
  start?: (service: Service) => Promise<void>,
): Promise<number> {
  const { companions, imageRoots = [], root, goodbye, ...shared } = about;
  const onSignal = (name: string) => {
    if (goodbye !== undefined) terminal.say(`${name}: ${goodbye}; once more to quit at once`);
  };
  return withSharedQueue({ ...shared, logger: terminal.logger, onSignal }, async (service) => {
    const { connection, undo, signal } = service;
    connection.outage.on((...trouble) => terminal.warn(troubleText(...trouble)));
    const mayRead = root && ((output: string) => root.output(output));
    for (const companion of companions) undo.defer(await companion(connection, imageRoots, mayRead));
    await start?.(service);
    await untilAborted(signal);
    return 0;
  });
}
