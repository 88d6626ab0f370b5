import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { openCsv } from './csv-manifest.js';
import { openJsonl } from './jsonl-manifest.js';
import { listReader } from './list-manifest.js';
import { UnreadableError, describeUnreadable } from './manifest-bytes.js';
import { type ManifestFormat, manifestDelimiter, manifestFormat } from './manifest-format.js';
import { ManifestReading } from './manifest-reading.js';
import { emptyManifest, findSource } from './manifest-source.js';
import type { ManifestRecord, RecordReader } from './record-reader.js';
import { Tape } from './tape.js';

export type { ManifestFormat } from './manifest-format.js';
export type { ManifestRecord } from './record-reader.js';

/** How many records are looked at before anything is done. */
export const SAMPLE_RECORDS = 100;

export interface ManifestOptions {
  /** A file, or `-` for `input`. */
  readonly path: string;
  /** Default: what the name's ending says. */
  readonly format?: ManifestFormat | undefined;
  /** Of a csv; default: found in its header. */
  readonly delimiter?: string | undefined;
  /** What `-` stands for; default: this process's stdin. */
  readonly input?: NodeJS.ReadableStream | undefined;
  /** Ends the opening, which waits for a pipe's first records, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A manifest whose header and first records have been read. */
export interface Manifest {
  readonly path: string;
  /** How messages name it: the path, or `stdin`. */
  readonly name: string;
  readonly format: ManifestFormat;
  readonly columns: readonly string[];
  /** Of a csv or tsv; a comma for the other formats. */
  readonly delimiter: string;
  /** The first records, at most 100; fewer too when one among them cannot be read past. */
  readonly sample: readonly ManifestRecord[];
  /** Bytes on disk (packed, if it is packed); undefined for stdin and pipes. */
  readonly sizeBytes?: number | undefined;
  /** Whether `batches` can be called again. */
  readonly replayable: boolean;
  /**
   * All records from the first, in batches of at most 500, read as they are asked for. An abort ends the iteration
   * without an error; every end closes the file.
   * @throws {FatalError} where the manifest cannot be read past, after all records before that place
   */
  batches(signal?: AbortSignal): AsyncIterable<readonly ManifestRecord[]>;
  /** Ends whatever reading is going on, and closes the file. */
  close(): Promise<void>;
}

/**
 * Opens a manifest: finds its format and columns, and reads its first records.
 * @throws {UsageError} one line that says what is wrong with it and what to do
 * @throws the signal's reason when it aborts first
 */
export async function openManifest(options: ManifestOptions): Promise<Manifest> {
  const { path, signal } = options;
  const format = manifestFormat(path, options.format);
  const delimiter = manifestDelimiter(format, options.delimiter);
  const source = await findSource(path, options.input ?? process.stdin);
  const pass = await source.open();
  const abort = () => void pass.close();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    signal?.throwIfAborted();
    const tape = new Tape(pass.bytes);
    const reader = await inspect(tape, format, delimiter, source.name);
    const sample = await readSample(reader, tape, source.name);
    signal?.throwIfAborted();
    if (source.replayable) await pass.close();
    const { columns } = reader;
    const reading = new ManifestReading(source, reader, { pass, tape });
    return {
      path,
      name: source.name,
      format,
      columns,
      delimiter: reader.delimiter,
      sample,
      sizeBytes: source.sizeBytes,
      replayable: source.replayable,
      batches: (signal) => reading.batches(signal),
      close: () => reading.close(),
    };
  } catch (error) {
    await pass.close();
    signal?.throwIfAborted();
    throw error instanceof UnreadableError
      ? new UsageError(describeUnreadable(source.name, '', error), { cause: error })
      : error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** Finds what makes records of the bytes. */
async function inspect(
  tape: Tape,
  format: ManifestFormat,
  delimiter: string | undefined,
  name: string,
): Promise<RecordReader> {
  const first = await firstPiece(tape);
  if (first === undefined) throw emptyManifest(name);
  // Only its first line: a NUL further on is a strange cell, and no reason to refuse a manifest.
  const [line = ''] = first.toString('latin1').split('\n', 1);
  if (line.includes('\0')) {
    throw new UsageError(`${name} is no text: it has to be csv, tsv, JSON Lines or a list of URLs, in UTF-8`);
  }
  switch (format) {
    case 'csv':
    case 'tsv':
      return openCsv(tape.read(), { format, delimiter, name });
    case 'jsonl':
      return openJsonl(tape.read(), name);
    case 'list':
      return listReader(name);
  }
}

/** Not a fixed number of bytes, for which a slow pipe would be waited for. */
async function firstPiece(tape: Tape): Promise<Buffer | undefined> {
  for await (const piece of tape.read()) return piece;
  return undefined;
}

/** An error behind the first record is left to the reading that comes upon it again. */
async function readSample(
  reader: RecordReader,
  tape: Tape,
  name: string,
): Promise<readonly ManifestRecord[]> {
  const sample: ManifestRecord[] = [];
  try {
    for await (const batch of reader.read(tape.read())) {
      sample.push(...batch.slice(0, SAMPLE_RECORDS - sample.length));
      if (sample.length === SAMPLE_RECORDS) break;
    }
  } catch (error) {
    if (!(error instanceof FatalError)) throw error;
    if (sample.length > 0) return sample;
    throw error instanceof UnreadableError ? error : new UsageError(messageOf(error), { cause: error });
  }
  if (sample.length === 0)
    throw new UsageError(`${name} has no records, only a header or blank lines: add some`);
  return sample;
}
