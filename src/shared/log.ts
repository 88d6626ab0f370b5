import { type LevelWithSilent, type Logger, pino } from 'pino';
import { messageOf } from './errors.js';

export type { LevelWithSilent as LogLevel, Logger };

/** A logger that writes JSON lines to stderr. */
export function createLogger(level: LevelWithSilent): Logger {
  return pino({ level, base: { pid: process.pid } }, pino.destination({ dest: 2, sync: true }));
}

/** For a `catch`: what failed costs nobody anything, and is logged at debug. */
export function debugError(logger: Logger, text: string, about: object = {}): (error: unknown) => void {
  return (error) => logger.debug({ ...about, error: messageOf(error) }, text);
}

export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}
