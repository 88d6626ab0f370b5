import { pino } from 'pino';
import { z } from 'zod';
import { type LogLevel, type Logger, createLogger } from '../shared/log.js';
import type { Terminal } from './terminal.js';
import { printable } from './text.js';

const LONGEST = 500;

const recordSchema = z.looseObject({ level: z.number(), msg: z.string().default('') });

/** A command's logger: JSON lines on stderr, but where that is a terminal, lines for whoever sits there. */
export function createCommandLogger(level: LogLevel, terminal: Terminal): Logger {
  if (!process.stderr.isTTY) return createLogger(level);
  return pino({ level, base: {}, timestamp: false }, { write: (line) => terminal.warn(logText(line)) });
}

/** A log record as people read it: `warn: the queue reports an error (queue describe, error: no room)`. */
export function logText(line: string): string {
  const record = recordSchema.safeParse(JSON.parse(line)).data;
  if (record === undefined) return printable(line, LONGEST);
  const { level, msg, ...fields } = record;
  const about = Object.entries(fields).map(([name, value]) => `${name} ${textOf(value)}`);
  const label = pino.levels.labels[level] ?? 'log';
  return printable(`${label}: ${msg}${about.length === 0 ? '' : ` (${about.join(', ')})`}`, LONGEST);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
