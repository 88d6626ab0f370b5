import type { Manifest, ManifestRecord } from '../producer/manifest.js';
import { type Row, toRow } from '../producer/row-reader.js';
import { FatalError, messageOf } from '../shared/errors.js';
import { isPermanent } from '../shared/jobs.js';
import type { KnownFailures } from '../writer/failures.js';
import type { PreparedRun } from './prepare.js';
import type { RunOptions } from './run-options.js';

/** Reading more than this takes longer than anybody waits for a preview. */
const MOST_BYTES = 1024 ** 3;

/** An image that is to be described, and whose URL does not hold for ever. */
export interface SignedImage {
  /** Which of those that are to be described, and which row, both from 1. */
  readonly turn: number;
  readonly row: number;
  /** Epoch milliseconds. */
  readonly expiresAt: number;
}

/**
 * A manifest's batches up to a place that cannot be read past: the run comes to the same one, and takes on what is before it.
 * @param onBreak gets what is wrong there
 */
export async function* untilBroken<Batch>(
  batches: AsyncIterable<Batch>,
  onBreak?: (reason: string) => void,
): AsyncGenerator<Batch, void> {
  try {
    yield* batches;
  } catch (error) {
    if (!(error instanceof FatalError)) throw error;
    onBreak?.(messageOf(error));
  }
}

/** Whether only its first records are counted. */
export function isCountedInPart({ replayable, sizeBytes = 0 }: Manifest): boolean {
  return !replayable || sizeBytes > MOST_BYTES;
}

interface FoundInManifest {
  /** Images to be described whose signed URLs expire. */
  readonly signed: SignedImage[];
  firstUrl: string;
  /** Why the rest was not counted: the manifest cannot be read past some place. */
  unreadable: string | undefined;
}

/** rows = described + toCopy + failedBefore + newImages + left + badUrls + badRecords + duplicateKeys */
export type ManifestCounts = ReturnType<typeof createCounts>;

export function createCounts() {
  const found: FoundInManifest = { signed: [], firstUrl: '', unreadable: undefined };
  return {
    ...found,
    /** Only the first records were counted: the manifest is a pipe, or over 1 GB on disk. */
    sampled: false,
    rows: 0,
    /** Distinct ones. */
    images: 0,
    described: 0,
    /** Rows that share an image with a described row, or with an earlier one that is to be described. */
    toCopy: 0,
    /** Rows that failed in an earlier run in a way that another submit would not change. */
    failedBefore: 0,
    /** Their images. */
    failedImages: 0,
    /** What is to be paid for. */
    newImages: 0,
    /** Those of them that are on this machine, or in the manifest itself. */
    localImages: 0,
    /** Rows that are left for another run. */
    left: 0,
    /** Rows without a URL, or with one that is none. */
    badUrls: 0,
    badRecords: 0,
    /** Rows with a key that an earlier one has. */
    duplicateKeys: 0,
    /** Records without any cell: they are no rows. */
    emptyRecords: 0,
    /** Keys of JSON Lines that first come later than the columns were found: they are in no file. And names of what holds bytes. */
    unknownKeys: new Set<string>(),
  };
}

/**
 * Counts the manifest's rows by the rules by which the run takes them on. Memory: some 70 bytes for each distinct image
 * that is not described, and as many where its URL is signed.
 * @param onNew gets the first row of each image that is to be described; what it returns is waited for
 */
export async function countRows(
  prepared: Pick<PreparedRun, 'manifest' | 'outputOptions' | 'failedBefore' | 'isInSample'>,
  { retryAll, signal }: Pick<RunOptions, 'retryAll' | 'signal'>,
  onNew?: (row: Row) => Promise<void>,
): Promise<ManifestCounts> {
  const { manifest, outputOptions, failedBefore } = prepared;
  const counter = new RowCounter(prepared, retryAll ? undefined : failedBefore);
  const { counts } = counter;
  counts.sampled = isCountedInPart(manifest);
  outputOptions.index.startPass();
  const all = untilBroken(manifest.batches(signal), (reason) => (counts.unreadable = reason));
  for await (const records of counts.sampled ? [manifest.sample] : all) {
    for (const record of records) {
      const row = counter.count(record);
      if (row !== undefined && onNew !== undefined) await onNew(row);
    }
  }
  return counts;
}

class RowCounter {
  readonly counts = createCounts();
  /** Images that are not described, and what each was first counted as; the index keeps the others. */
  readonly #images = new Map<string, 'new' | 'failed' | undefined>();

  constructor(
    private readonly prepared: Pick<PreparedRun, 'outputOptions' | 'isInSample'>,
    private readonly failures: KnownFailures | undefined,
  ) {}

  /** Counts a record in one place. @returns its row, where that is the first of an image that is to be described */
  count(record: ManifestRecord): Row | undefined {
    const { counts, prepared } = this;
    for (const key of record.unknownKeys ?? []) counts.unknownKeys.add(key);
    for (const name of record.binary ?? []) counts.unknownKeys.add(`${name}: bytes`);
    if (record.isEmpty === true) {
      counts.emptyRecords++;
      return undefined;
    }
    counts.rows++;
    const row = toRow(record, prepared.outputOptions);
    const { url, image } = row;
    if (url === undefined || image === undefined) {
      if (row.problem?.code === 'bad-record') counts.badRecords++;
      else counts.badUrls++;
    } else if (!prepared.outputOptions.index.markSeen(row)) {
      counts.duplicateKeys++;
    } else {
      counts.firstUrl ||= url;
      if (this.#countImage(row, url, image)) return row;
    }
    return undefined;
  }

  /** @returns whether the image is to be described, and this is its first row */
  #countImage(row: Row, url: string, image: string): boolean {
    const { counts, prepared } = this;
    const onFile = prepared.outputOptions.index;
    const isFirst = onFile.meetImage(image);
    const before = this.#images.get(image);
    if (isFirst ?? !this.#images.has(image)) counts.images++;
    if (isFirst === undefined) this.#images.set(image, before);
    const previous = this.failures?.get((onFile.keyed ? row.key : image) ?? '');
    if (onFile.take(row)) counts.described++;
    else if (isFirst !== undefined || before === 'new') counts.toCopy++;
    else if (previous?.image === image && isPermanent(previous.outcome.code)) {
      counts.failedBefore++;
      if (before !== 'failed') counts.failedImages++;
      this.#images.set(image, 'failed');
    } else if (prepared.isInSample?.(row) === false) counts.left++;
    else {
      counts.newImages++;
      if (!/^https?:/.test(url)) counts.localImages++;
      this.#images.set(image, 'new');
      const expiresAt = expiryOf(url);
      if (expiresAt !== undefined) counts.signed.push({ turn: counts.newImages, row: row.number, expiresAt });
      return true;
    }
    return false;
  }
}

/** Of a URL without such a parameter nothing more is looked at: a manifest has a million. */
const MAY_EXPIRE = /[?&](?:x-(?:amz|goog)-expires|expires|se)=/i;

/**
 * When a signed URL expires, as its own parameters say: those of S3 and what speaks as it does (both versions), Google Cloud
 * Storage, Azure and CloudFront.
 * @returns epoch milliseconds; undefined where it is not signed, or does not say
 */
export function expiryOf(url: string): number | undefined {
  if (!MAY_EXPIRE.test(url)) return undefined;
  const query = url.slice(url.indexOf('?') + 1);
  const given = new Map([...new URLSearchParams(query)].map(([name, value]) => [name.toLowerCase(), value]));
  const expiry = [signedFor(given, 'amz'), signedFor(given, 'goog'), signedUntil(given), sharedUntil(given)];
  return expiry.find((ms) => Number.isFinite(ms));
}

type Parameters = ReadonlyMap<string, string>;

/** `X-Amz-Date=20260102T030405Z&X-Amz-Expires=3600` */
function signedFor(given: Parameters, by: 'amz' | 'goog'): number {
  const date = given.get(`x-${by}-date`) ?? '';
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date) ?? [];
  const signedAt = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return signedAt + wholeNumber(given.get(`x-${by}-expires`)) * 1000;
}

/** `Expires=1767323045&Signature=...`; another `expires` need not speak of the URL. */
function signedUntil(given: Parameters): number {
  return given.has('signature') ? wholeNumber(given.get('expires')) * 1000 : NaN;
}

/** `se=2026-01-02T03:04:05Z&sig=...`; a date alone is its beginning, in UTC. */
function sharedUntil(given: Parameters): number {
  const until = given.get('se') ?? '';
  return given.has('sig') && /^\d{4}-\d\d-\d\d(?:T[\d:.]+Z)?$/.test(until) ? Date.parse(until) : NaN;
}

function wholeNumber(text = ''): number {
  return /^\d{1,12}$/.test(text) ? Number(text) : NaN;
}
