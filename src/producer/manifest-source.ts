import { constants, open as openWithDescriptor } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { Readable, addAbortSignal } from 'node:stream';
import { finished } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { FatalError, UsageError, fileTrouble, messageOf, shownPath } from '../shared/errors.js';
import { type ManifestSource, readAhead } from './manifest-format.js';

/** The bytes end too early or cannot be had. Its message says why, and not where: the reader of records knows that. */
export class UnreadableError extends FatalError {
  override name = 'UnreadableError';
}

const GZIP_MAGIC = Buffer.from([0x1f, 0x8b]);
const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const UTF8_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const UTF16_MARKS = [
  { mark: Buffer.from([0xff, 0xfe]), encoding: 'utf-16le' },
  { mark: Buffer.from([0xfe, 0xff]), encoding: 'utf-16be' },
];
/** No piece is larger, whatever the stream delivers: parsers hold what one piece gives. */
const PIECE_BYTES = 64 * 1024;
const DECODED_BYTES = 4 * 1024;

/**
 * Reads `--encoding`, a name that `TextDecoder` knows.
 * @throws {UsageError} when it knows none such
 */
export function parseEncoding(text = 'utf-8'): string {
  try {
    return new TextDecoder(text).encoding;
  } catch {
    const examples = 'windows-1252, latin1, shift_jis, gb18030 or utf-16le';
    throw new UsageError(`--encoding ${text}: no such encoding is known: expected one such as ${examples}`);
  }
}

/**
 * Looks at where a manifest comes from, without opening it.
 * @param path `-` for `input`
 * @param encoding of its text, where no byte order mark says it
 * @throws {UsageError} when there is no such file, or it is empty
 */
export async function findSource(
  path: string,
  input: NodeJS.ReadableStream,
  encoding: string,
): Promise<ManifestSource> {
  if (path === '-') {
    const stream = input instanceof Readable ? input : Readable.from(input);
    return {
      path,
      name: 'stdin',
      encoding,
      isFolder: false,
      replayable: false,
      sizeBytes: undefined,
      // It is not ours, and does not have to say when it is closed.
      read: (signal) => readText(stream, 'stdin', encoding, signal),
    };
  }
  const stats = await stat(path).catch((error: unknown) => {
    throw cannotOpen(path, error);
  });
  if (stats.isFile() && stats.size === 0) throw emptyManifest(path);
  return {
    path,
    name: path,
    encoding,
    isFolder: stats.isDirectory(),
    replayable: stats.isFile() || stats.isDirectory(),
    sizeBytes: stats.isFile() ? stats.size : undefined,
    async *read(signal) {
      const stream = await (stats.isFIFO() ? openPipe(path) : openFile(path));
      try {
        yield* readText(stream, path, encoding, signal);
      } finally {
        stream.destroy();
        // The descriptor is free then.
        if (!stream.closed) await new Promise<void>((resolve) => stream.once('close', () => resolve()));
      }
    },
  };
}

async function openFile(path: string): Promise<Readable> {
  const handle = await open(path).catch((error: unknown) => {
    throw cannotOpen(path, error);
  });
  return handle.createReadStream();
}

/**
 * Opens a named pipe. Hazard: opened and read as files are, one that nobody writes to would hold a thread, which not
 * even the end of the process could take away.
 */
async function openPipe(path: string): Promise<Readable> {
  const { Socket } = await import('node:net');
  const fd = await new Promise<number>((resolve, reject) => {
    openWithDescriptor(path, constants.O_RDONLY | constants.O_NONBLOCK, (error, descriptor) => {
      if (error === null) resolve(descriptor);
      else reject(cannotOpen(path, error));
    });
  });
  return new Socket({ fd, readable: true, writable: false });
}

async function* readText(
  stream: Readable,
  name: string,
  encoding: string,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void> {
  // Errors come out of the reading; one that comes when nobody reads any more is of no interest.
  stream.on('error', () => undefined);
  // A reading that waits for bytes of a pipe ends only by this.
  addAbortSignal(signal, stream);
  try {
    const pieces = readPieces(stream);
    const { ahead, all } = await readAhead(pieces, hasBytes(ZSTD_MAGIC.length));
    const isGzip = startsWith(Buffer.concat(ahead), GZIP_MAGIC);
    if (startsWith(Buffer.concat(ahead), ZSTD_MAGIC)) {
      throw new UsageError(
        `${name} is zstd data: unpack it first (zstd -d), or send it unpacked to stdin (zstdcat)`,
      );
    }
    if (/\.gz$/i.test(name) && !isGzip && ahead.length > 0) {
      throw new UsageError(
        `${name} is not gzip data, though its name ends in .gz: rename it, or pack it again`,
      );
    }
    yield* readUtf8(isGzip ? unzip(all) : all, name, encoding);
  } finally {
    stream.destroy();
  }
}

/** Its text as UTF-8, without the byte order mark. @throws {UsageError} when it is empty, or no text */
async function* readUtf8(
  packed: AsyncGenerator<Buffer, void>,
  name: string,
  encoding: string,
): AsyncGenerator<Buffer, void> {
  let text = packed;
  try {
    const isLongEnough = hasBytes(UTF8_MARK.length + 1);
    let { ahead, all } = await readAhead(packed, isLongEnough);
    let start = Buffer.concat(ahead);
    const isMarked = startsWith(start, UTF8_MARK);
    // What the file says of itself counts.
    const marked = UTF16_MARKS.find(({ mark }) => startsWith(start, mark))?.encoding;
    const actual = marked ?? (isMarked ? 'utf-8' : encoding);
    if (actual !== 'utf-8') {
      text = decode(all, actual);
      ({ ahead, all } = await readAhead(text, isLongEnough));
      start = Buffer.concat(ahead);
    }
    let markBytes = isMarked ? UTF8_MARK.length : 0;
    if (start.length === markBytes) throw emptyManifest(name);
    // Only its first line: a NUL further on is a strange cell, and no reason to refuse a manifest.
    const [line = ''] = start.toString('latin1').split('\n', 1);
    if (line.includes('\0')) {
      throw new UsageError(
        `${name} is no text: it has to be csv, tsv, JSON, JSON Lines or a list of URLs, in UTF-8 or with --encoding (utf-16le for example), or Parquet`,
      );
    }
    for await (const piece of all) {
      const rest = piece.subarray(markBytes);
      markBytes = Math.max(0, markBytes - piece.length);
      if (rest.length > 0) yield rest;
    }
  } finally {
    await text.return();
    await packed.return();
  }
}

/** @throws {UnreadableError} at a piece with bytes that cannot be decoded */
async function* decode(pieces: AsyncIterable<Buffer>, encoding: string): AsyncGenerator<Buffer, void> {
  const decoder = new TextDecoder(encoding, { fatal: true });
  const next = (piece?: Buffer) => {
    try {
      return Buffer.from(decoder.decode(piece, { stream: piece !== undefined }));
    } catch {
      throw new UnreadableError(`it has bytes that are no ${encoding} (is --encoding the right one?)`);
    }
  };
  for await (const piece of pieces) {
    // A few bytes at a time: of a piece that cannot be decoded nothing is given.
    for (let start = 0; start < piece.length; start += DECODED_BYTES) {
      const decoded = next(piece.subarray(start, start + DECODED_BYTES));
      if (decoded.length > 0) yield decoded;
    }
  }
  const last = next();
  if (last.length > 0) yield last;
}

async function* readPieces(stream: Readable): AsyncGenerator<Buffer, void> {
  try {
    for await (const chunk of stream) {
      const bytes = bytesOf(chunk);
      for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
        yield bytes.subarray(start, start + PIECE_BYTES);
      }
    }
  } catch (error) {
    throw new UnreadableError(messageOf(error), { cause: error });
  }
}

function bytesOf(chunk: unknown): Buffer {
  if (Buffer.isBuffer(chunk)) return chunk;
  if (chunk instanceof Uint8Array) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  return Buffer.from(String(chunk));
}

/**
 * Unpacks piece by piece, so that all that comes before a broken place is delivered: a stream that is destroyed by
 * an error throws away what nobody has read yet.
 */
async function* unzip(packed: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  const gunzip = createGunzip();
  const unpacked: Buffer[] = [];
  gunzip.on('data', (chunk: Buffer) => unpacked.push(chunk));
  const ended = finished(gunzip).then(
    () => undefined,
    (error: unknown) => new UnreadableError(`the gzip data is damaged or incomplete (${messageOf(error)})`),
  );
  try {
    for await (const piece of packed) {
      await Promise.race([ended, new Promise<void>((resolve) => gunzip.write(piece, () => resolve()))]);
      yield* unpacked.splice(0);
      if (gunzip.destroyed) break;
    }
    gunzip.end();
    const failure = await ended;
    yield* unpacked.splice(0);
    if (failure !== undefined) throw failure;
  } finally {
    gunzip.destroy();
  }
}

function hasBytes(least: number): (pieces: readonly Buffer[]) => boolean {
  return (pieces) => pieces.reduce((sum, { length }) => sum + length, 0) >= least;
}

function startsWith(bytes: Buffer, mark: Buffer): boolean {
  return bytes.subarray(0, mark.length).equals(mark);
}

function emptyManifest(name: string): UsageError {
  return new UsageError(`${name} is empty: give a manifest with a record for each image`);
}

/** One line of why there is no such manifest. */
export function cannotOpen(path: string, error: unknown): UsageError {
  return new UsageError(`${shownPath(path)}: ${fileTrouble(error, REASONS)}`, { cause: error });
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file: check the path',
  ENOTDIR: 'no such file: check the path',
  EACCES: 'permission to read it is denied: change its permissions, or copy it',
  EPERM: 'permission to read it is denied: change its permissions, or copy it',
};
