import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { Tape } from './tape.js';

const GZIP_MAGIC = Buffer.from([0x1f, 0x8b]);
const UTF8_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const UTF16_MARKS = [Buffer.from([0xff, 0xfe]), Buffer.from([0xfe, 0xff])];
/** No piece is larger, whatever the stream delivers: parsers hold what one piece gives. */
const PIECE_BYTES = 64 * 1024;

/** The bytes end too early or cannot be had. Its message says why, and not where: the reader of records knows that. */
export class UnreadableError extends FatalError {
  override name = 'UnreadableError';
}

/** The message for an `UnreadableError`. @param place ` past ...`, or nothing when not a record was read */
export function describeUnreadable(name: string, place: string, error: UnreadableError): string {
  return `${name} cannot be read${place}: ${messageOf(error)}: make or fetch it again`;
}

/**
 * A manifest's text as bytes: unpacked if it is gzip (the first bytes tell), without its byte order mark, in
 * pieces of at most 64 KB that are read when they are asked for. Its end, early or not, destroys the stream.
 * @param source `name` for messages, and whether the name promises gzip
 * @throws {UsageError} at the first piece, when it is no UTF-8 by its byte order mark or not the promised gzip
 * @throws {UnreadableError} when reading or unpacking fails
 */
export async function* readText(
  stream: Readable,
  source: { readonly name: string; readonly expectGzip: boolean },
): AsyncGenerator<Buffer, void> {
  const packed = new Tape(piecesOf(stream));
  const magic = await packed.head(GZIP_MAGIC.length);
  const isGzip = magic.equals(GZIP_MAGIC);
  if (source.expectGzip && !isGzip && magic.length > 0) {
    stream.destroy();
    throw new UsageError(
      `${source.name} is not gzip data, though its name ends in .gz: rename it, or pack it again`,
    );
  }
  const text = new Tape(isGzip ? unzip(packed.rest()) : packed.rest());
  const mark = await text.head(UTF8_MARK.length);
  if (UTF16_MARKS.some((utf16) => mark.subarray(0, utf16.length).equals(utf16))) {
    stream.destroy();
    throw new UsageError(`${source.name} is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)`);
  }
  yield* skipBytes(text.rest(), mark.equals(UTF8_MARK) ? mark.length : 0);
}

async function* piecesOf(stream: Readable): AsyncGenerator<Buffer, void> {
  try {
    for await (const chunk of stream) {
      const bytes = bytesOf(chunk);
      for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
        yield bytes.subarray(start, start + PIECE_BYTES);
      }
    }
  } catch (error) {
    throw error instanceof UnreadableError ? error : new UnreadableError(messageOf(error), { cause: error });
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
async function* unzip(packed: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  const gunzip = createGunzip();
  const ended = new Promise<void>((resolve) => gunzip.once('close', () => resolve()));
  let unpacked: Buffer[] = [];
  let failure: Error | undefined;
  gunzip.on('data', (chunk: Buffer) => unpacked.push(chunk));
  gunzip.on('error', (error) => (failure ??= error));
  const take = () => unpacked.splice(0);
  try {
    for await (const piece of packed) {
      await Promise.race([ended, new Promise<void>((resolve) => gunzip.write(piece, () => resolve()))]);
      yield* take();
      if (failure !== undefined) break;
    }
    gunzip.end();
    await ended;
    yield* take();
  } finally {
    gunzip.destroy();
    unpacked = [];
  }
  if (failure === undefined) return;
  throw new UnreadableError(`the gzip data is damaged or incomplete (${messageOf(failure)})`, {
    cause: failure,
  });
}

async function* skipBytes(chunks: AsyncIterable<Buffer>, count: number): AsyncGenerator<Buffer, void> {
  let left = count;
  for await (const chunk of chunks) {
    const rest = chunk.subarray(Math.min(left, chunk.length));
    left = Math.max(0, left - chunk.length);
    if (rest.length > 0) yield rest;
  }
}
