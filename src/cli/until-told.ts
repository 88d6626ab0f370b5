import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { UndoStack } from '../shared/undo.js';
import { createCommandLogger } from './command-logger.js';
import type { FlagTable, ParsedFlags } from './flags.js';
import { openSharedQueue } from './redis-queue.js';
import { ACCOUNT_FLAGS, OUTPUT_FLAGS, parseLogLevel } from './run-flags.js';
import { listenForSignals, untilTold } from './signals.js';
import { Terminal } from './terminal.js';

/** Flags of every command that runs until it is told to stop. */
export const SERVICE_FLAGS = {
  queue: ACCOUNT_FLAGS.queue,
  quiet: OUTPUT_FLAGS.quiet,
  'log-level': OUTPUT_FLAGS['log-level'],
  help: OUTPUT_FLAGS.help,
} as const satisfies FlagTable;

type ServiceFlags = ParsedFlags<typeof SERVICE_FLAGS>;

/** How such a command talks. */
export interface Talk {
  readonly terminal: Terminal;
  readonly logger: Logger;
}

/** What it has while it runs. What it starts is undone, the last first, when it is told to stop. */
export interface Service {
  readonly connection: QueueConnection;
  readonly undo: UndoStack;
  /** Aborts when it is told to stop. */
  readonly signal: AbortSignal;
}

export function talkOf(flags: ServiceFlags): Talk {
  const terminal = new Terminal(process.stderr, { quiet: flags.has('quiet'), progress: false });
  return { terminal, logger: createCommandLogger(parseLogLevel(flags.get('log-level')), terminal) };
}

/**
 * Opens the queue, starts what there is to start, and waits for the first signal.
 * @param command its name, for errors
 * @param goodbye what it does when it is told to stop, for people; nothing where that takes no time
 * @returns 0
 */
export async function runUntilTold(
  command: string,
  about: Talk & { readonly flags: ServiceFlags; readonly env: NodeJS.ProcessEnv; readonly goodbye?: string },
  start: (service: Service) => Promise<void>,
): Promise<number> {
  const { terminal, logger, flags, env, goodbye } = about;
  const undo = new UndoStack();
  const signals = listenForSignals((name) => {
    if (goodbye !== undefined) terminal.say(`${name}: ${goodbye}; once more to quit at once`);
  });
  undo.defer(() => signals.dispose());
  try {
    const connection = await openSharedQueue(command, flags.get('queue'), env, { logger });
    undo.defer(() => connection.close());
    connection.onTrouble((...trouble) => terminal.warn(troubleText(...trouble)));
    await start({ connection, undo, signal: signals.signal });
    await untilTold(signals.signal);
    return 0;
  } finally {
    await undo.release();
  }
}
