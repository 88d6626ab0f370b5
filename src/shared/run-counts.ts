import type { ErrorCode } from './jobs.js';
import type { SharedStore } from './queue/store.js';

/** What a run has done so far; the producer and the writer count, the receipt adds up. */
export function createRunCounts() {
  return {
    /** Manifest rows read. */
    rows: 0,
    /** Described by this run. */
    described: 0,
    /** Already in the output, or in an earlier one, when the run started. */
    resumed: 0,
    /** Written from the outcome of another row with the same image. */
    copied: 0,
    failedByCode: new Map<ErrorCode, number>(),
    /** HTTP calls made for this run. */
    submits: 0,
    polls: 0,
    /** Tokens that the API says were used for what has ended, failed answers included. */
    inputTokens: 0,
    outputTokens: 0,
    /** Images that were in flight since an earlier run, and were not paid for again. */
    reattached: 0,
    /** Submits whose answer was lost, so that the image may have been paid for once more. */
    maybePaidTwice: 0,
    /** Submits whose answer was lost, and that webhooks have saved from being paid for once more. */
    rescued: 0,
  };
}

export type RunCounts = ReturnType<typeof createRunCounts>;

/** What became of submits whose answer was lost: counted over all processes of a run, killed ones included. */
export type LostSubmits = Pick<RunCounts, 'maybePaidTwice' | 'rescued'>;

export function countFailed(counts: RunCounts, code: ErrorCode): void {
  counts.failedByCode.set(code, (counts.failedByCode.get(code) ?? 0) + 1);
}

/** A row that failed is described after all. */
export function uncountFailed(counts: RunCounts, code: ErrorCode): void {
  const left = (counts.failedByCode.get(code) ?? 0) - 1;
  if (left === 0) counts.failedByCode.delete(code);
  else counts.failedByCode.set(code, left);
}

export function failedRows({ failedByCode }: Pick<RunCounts, 'failedByCode'>): number {
  return [...failedByCode.values()].reduce((sum, count) => sum + count, 0);
}

/** Before an image's hash. */
const IMAGE_FIELD = 'image:';

function recordOf(run: string): string {
  return `counts:${run}`;
}

/** What processes of a run that printed no receipt have counted. */
export async function readLostSubmits(
  store: SharedStore,
  run: string,
): Promise<LostSubmits & { readonly byImage: Map<string, number> }> {
  const { maybePaidTwice = 0, rescued = 0, ...images } = await store.getFields(recordOf(run));
  const byImage = new Map(
    Object.entries(images).map(([field, lost]) => [field.slice(IMAGE_FIELD.length), Number(lost)]),
  );
  return { maybePaidTwice: Number(maybePaidTwice), rescued: Number(rescued), byImage };
}

/**
 * Keeps the counts until a receipt says them.
 * @param counted the image whose lost submits have just been added, and how many it has: when its result comes once more,
 *   since the process was killed before the row was on disk, they are counted already
 */
export async function keepLostSubmits(
  store: SharedStore,
  run: string,
  { maybePaidTwice, rescued }: LostSubmits,
  counted?: { readonly image: string; readonly maybePaid: number },
): Promise<void> {
  const ofImage = counted && { [IMAGE_FIELD + counted.image]: String(counted.maybePaid) };
  const totals = { maybePaidTwice: String(maybePaidTwice), rescued: String(rescued) };
  await store.setFields(recordOf(run), { ...totals, ...ofImage });
}

/** A receipt has said the counts. */
export async function forgetLostSubmits(store: SharedStore, run: string): Promise<void> {
  const fields = Object.keys(await store.getFields(recordOf(run)));
  await store.setFields(recordOf(run), Object.fromEntries(fields.map((field) => [field, null])));
}
