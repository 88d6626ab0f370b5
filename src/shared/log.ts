import { type LevelWithSilent, type Logger, pino } from 'pino';
import { messageOf } from './errors.js';

export type { LevelWithSilent as LogLevel, Logger };

/** What is kept while nothing can be written. */
const MOST_KEPT_BYTES = 1 << 20;

/** A logger that writes JSON lines to stderr, or nothing while that takes none. */
export function createLogger(level: LevelWithSilent): Logger {
  const stderr = pino.destination({ dest: 2, sync: true, maxLength: MOST_KEPT_BYTES });
  stderr.on('error', () => {
    // There is nowhere left to say it; the next line is tried again.
  });
  return pino({ level, base: { pid: process.pid } }, stderr);
}

/** For a `catch`: what failed costs nobody anything, and is logged at debug. */
export function debugError(logger: Logger, text: string, about: object = {}): (error: unknown) => void {
  return (error) => logger.debug({ ...about, error: messageOf(error) }, text);
}

export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}
