import { closeSync, openSync, readSync } from 'node:fs';
import { UsageError, messageOf } from '../shared/errors.js';

const MOST_BYTES = 64 * 1024;

/**
 * The text of a small file that a flag names, without space around it. It may be a pipe.
 * @throws {UsageError} when it cannot be read, or goes on beyond 64 KB
 */
export function readFlagFile(flag: string, path: string): string {
  let text: string | undefined;
  try {
    text = readStart(path);
  } catch (error) {
    throw new UsageError(`${flag} ${path} cannot be read: ${messageOf(error)}`);
  }
  if (text !== undefined) return text.trim();
  throw new UsageError(`${flag} ${path} is larger than 64 KB: is it the right file?`);
}

function readStart(path: string): string | undefined {
  const buffer = Buffer.alloc(MOST_BYTES + 1);
  const file = openSync(path, 'r');
  try {
    let length = 0;
    for (let bytes = -1; bytes !== 0 && length < buffer.length; length += bytes) {
      bytes = readSync(file, buffer, length, buffer.length - length, null);
    }
    return length > MOST_BYTES ? undefined : buffer.toString('utf8', 0, length);
  } finally {
    closeSync(file);
  }
}
