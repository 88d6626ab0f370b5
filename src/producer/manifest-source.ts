import { constants, open as openWithDescriptor } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { UsageError, isSystemError, messageOf } from '../shared/errors.js';
import { readText } from './manifest-bytes.js';

/** One reading of a manifest, from its first byte. */
export interface ManifestPass {
  /** Its text, see `readText`. */
  readonly bytes: AsyncGenerator<Buffer, void>;
  /** Whether it was ended from here. The bytes end with some error then, or at once. */
  readonly isClosed: boolean;
  /** Closes the file, whatever is being read. May be called twice. */
  close(): Promise<void>;
}

/** Where a manifest comes from. */
export interface ManifestSource {
  /** How messages name it. */
  readonly name: string;
  /** False when it can be read once only: stdin and pipes. */
  readonly replayable: boolean;
  /** Bytes on disk, packed if it is packed; undefined for what is no file. */
  readonly sizeBytes: number | undefined;
  /** @throws {UsageError} when it cannot be opened */
  open(): Promise<ManifestPass>;
}

/**
 * Looks at where a manifest comes from, without opening it.
 * @param path `-` for `input`
 * @throws {UsageError} when there is no such file, or it is a folder or empty
 */
export async function findSource(path: string, input: NodeJS.ReadableStream): Promise<ManifestSource> {
  if (path === '-') {
    return {
      name: 'stdin',
      replayable: false,
      sizeBytes: undefined,
      open: () => Promise.resolve(startPass(toReadable(input), { name: 'stdin', expectGzip: false }, false)),
    };
  }
  const stats = await stat(path).catch((error: unknown) => {
    throw cannotOpen(path, error);
  });
  if (stats.isDirectory()) throw new UsageError(`${path} is a folder: name a file in it`);
  if (stats.isFile() && stats.size === 0) throw emptyManifest(path);
  return {
    name: path,
    replayable: stats.isFile(),
    sizeBytes: stats.isFile() ? stats.size : undefined,
    open: () => (stats.isFIFO() ? openPipe(path) : openFile(path)),
  };
}

export function emptyManifest(name: string): UsageError {
  return new UsageError(`${name} is empty: give a manifest with a record for each image`);
}

async function openFile(path: string): Promise<ManifestPass> {
  const handle = await open(path).catch((error: unknown) => {
    throw cannotOpen(path, error);
  });
  return startPass(handle.createReadStream(), { name: path, expectGzip: /\.gz$/i.test(path) }, true);
}

/**
 * Opens a named pipe. Hazard: opened and read as files are, one that nobody writes to would hold a thread, which not
 * even the end of the process could take away.
 */
async function openPipe(path: string): Promise<ManifestPass> {
  const { Socket } = await import('node:net');
  const descriptor = await openDescriptor(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stream = new Socket({ fd: descriptor, readable: true, writable: false });
  return startPass(stream, { name: path, expectGzip: /\.gz$/i.test(path) }, true);
}

function openDescriptor(path: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    openWithDescriptor(path, flags, (error, descriptor) => {
      if (error === null) resolve(descriptor);
      else reject(cannotOpen(path, error));
    });
  });
}

function startPass(
  stream: Readable,
  source: { name: string; expectGzip: boolean },
  isOurs: boolean,
): ManifestPass {
  // Errors come out of the reading; one that comes when nobody reads any more is of no interest.
  stream.on('error', () => undefined);
  const bytes = readText(stream, source);
  let isClosed = false;
  return {
    bytes,
    get isClosed() {
      return isClosed;
    },
    async close() {
      isClosed = true;
      // First the stream: a reading that waits for bytes of a pipe ends only by that.
      stream.destroy();
      await bytes.return();
      // The descriptor is free then. What is not ours, as stdin, does not have to say so.
      if (isOurs && !stream.closed)
        await new Promise<void>((resolve) => stream.once('close', () => resolve()));
    },
  };
}

function toReadable(input: NodeJS.ReadableStream): Readable {
  return input instanceof Readable ? input : Readable.from(input);
}

function cannotOpen(path: string, error: unknown): UsageError {
  const code = isSystemError(error) ? error.code : '';
  const reason = Object.hasOwn(REASONS, code) ? REASONS[code] : messageOf(error);
  return new UsageError(`${path}: ${reason ?? code}`, { cause: error });
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file: check the path',
  ENOTDIR: 'no such file: check the path',
  EACCES: 'permission to read it is denied: change its permissions, or copy it',
  EPERM: 'permission to read it is denied: change its permissions, or copy it',
};
