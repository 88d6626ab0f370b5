import { RUN_DEFAULTS } from '../run/run-options.js';
import { InterruptedEarlyError, UsageError } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { UndoStack } from '../shared/undo.js';
import type { Talk } from './terminal.js';
import { shellQuote } from './text.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export const INTERRUPTED = 130;

/** Turns the first interrupt into an abort; the second one ends the process at once. */
export function listenForSignals(onFirst?: (name: string) => void): {
  readonly signal: AbortSignal;
  dispose(): void;
} {
  const controller = new AbortController();
  const listener = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    onFirst?.(name === 'SIGINT' ? 'Ctrl-C' : name);
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, listener);
  return {
    signal: controller.signal,
    dispose() {
      for (const name of SIGNALS) process.off(name, listener);
    },
  };
}

/** Waits until the process is to stop. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** What a command has that runs until it is stopped. Its undos are done, the last first, when it is. */
export interface Service {
  readonly connection: QueueConnection;
  readonly undo: UndoStack;
  /** Aborts when it is to stop. */
  readonly signal: AbortSignal;
}

/**
 * Opens the queue of a command that shares it with other processes.
 * @param url `--queue`, or what stands in for it
 * @throws {UsageError} for the embedded queue, which one process has for itself
 * @throws {FatalError} when Redis is not there
 */
export async function openSharedQueue(
  command: string,
  url: string | undefined,
  logger?: Logger,
): Promise<QueueConnection> {
  const target = parseQueueUrl(url ?? RUN_DEFAULTS.queue, process.env);
  if (target.kind === 'embedded') {
    throw new UsageError(
      `${command} needs a queue that several processes share: give one with --queue redis://<host> or QUEUE_URL ` +
        '(`docker compose up -d redis` starts one at redis://localhost:6379); the embedded queue belongs to one process',
    );
  }
  const { openQueue } = await import('../shared/queue/connection.js');
  return openQueue(target, { logger, isShared: true });
}

/**
 * Does something on a shared queue that ends by itself, or with the first signal.
 * @param interrupted what the first signal leaves undone, for people; without it the work itself ends with the signal
 */
export async function withSharedQueue<T>(
  command: string,
  url: string | undefined,
  work: (connection: QueueConnection, signal: AbortSignal) => Promise<T>,
  interrupted?: string,
): Promise<T> {
  const connection = await openSharedQueue(command, url);
  const signals = listenForSignals();
  try {
    return await work(connection, signals.signal);
  } catch (error) {
    const isSignal = signals.signal.aborted && error === signals.signal.reason;
    throw isSignal && interrupted !== undefined ? new InterruptedEarlyError(interrupted) : error;
  } finally {
    signals.dispose();
    await connection.close();
  }
}

/**
 * Opens the queue, starts what there is to start, and waits for the first signal.
 * @param about its name for errors, and what it does when it is stopped, for people, where that takes time
 * @returns 0
 */
export async function runUntilStopped(
  about: { readonly command: string; readonly goodbye?: string },
  queue: string | undefined,
  { terminal, logger }: Talk,
  start: (service: Service) => Promise<void>,
): Promise<number> {
  const { command, goodbye } = about;
  const undo = new UndoStack();
  const signals = listenForSignals((name) => {
    if (goodbye !== undefined) terminal.say(`${name}: ${goodbye}; once more to quit at once`);
  });
  undo.defer(() => signals.dispose());
  try {
    const connection = await openSharedQueue(command, queue, logger);
    undo.defer(() => connection.close());
    connection.onTrouble((...trouble) => terminal.warn(troubleText(...trouble)));
    await start({ connection, undo, signal: signals.signal });
    await untilAborted(signals.signal);
    return 0;
  } finally {
    await undo.release();
  }
}

/** What a command that is shown to people needs to reach the same queue; nothing where the environment names it. */
export function queueArgument(url: string | undefined, { label }: Pick<QueueConnection, 'label'>): string {
  return url === undefined || url === process.env['QUEUE_URL'] ? '' : ` --queue ${shellQuote(label)}`;
}
