import { type FailedOutcome, type PreviousFailure, isPermanent } from '../shared/jobs.js';
import type { Row } from './row-reader.js';

/** What is known of rows and images; the output's index and the failures file stand behind it. */
export interface Lookup {
  /** False when this pass has met the row's key before. Without a key column always true. */
  markSeen(row: Row): boolean;
  /** Whether the output holds this very row. Without a key column each call uses one of its rows up. */
  isInOutput(row: Row): boolean;
  /** Whether the output holds a row with this image. */
  isDescribed(image: string): boolean;
  isPending(image: string): boolean;
  /** How the image failed in this run. */
  failedNow(image: string): FailedOutcome | undefined;
  previousFailure(row: Row): PreviousFailure | undefined;
  /** Whether a job or a result of the image is in the queue: somebody has taken it up again. */
  isTakenUp(image: string): boolean;
  /** Whether an image is left for another run, if its row has never failed: this one takes up failed rows alone. */
  isLeftUnlessFailed(image: string): boolean;
}

/** What is to become of a row. */
export type Decision =
  | { readonly action: 'fail'; readonly outcome: FailedOutcome }
  | { readonly action: 'resume' }
  | { readonly action: 'copy'; readonly image: string }
  | { readonly action: 'attach'; readonly image: string }
  /** Another run takes it on. */
  | { readonly action: 'leave' }
  /** To be submitted; `previous` when it failed before, and is taken up after the new rows. */
  | { readonly action: 'submit'; readonly image: string; readonly previous?: PreviousFailure | undefined };

function failBeforeSubmit(code: FailedOutcome['code'], reason: string): Decision {
  return { action: 'fail', outcome: { status: 'failed', code, reason, attempts: 0 } };
}

/** Decides what becomes of a row that is met for the first time in this pass. Uses its occurrence up. */
export function decideRow(row: Row, lookup: Lookup): Decision {
  if (row.problem !== undefined) return failBeforeSubmit(row.problem.code, row.problem.reason);
  if (!lookup.markSeen(row)) {
    return failBeforeSubmit('duplicate-key', `line ${row.line}: an earlier row has the key ${row.key ?? ''}`);
  }
  if (lookup.isInOutput(row)) return { action: 'resume' };
  return decideImage(row, lookup);
}

/** Decides by the row's image alone: for rows that are not in the output. May be asked again. */
export function decideImage(row: Row, lookup: Lookup): Decision {
  const { image } = row;
  if (image === undefined) return failBeforeSubmit('invalid-url', 'no URL');
  if (lookup.isDescribed(image)) return { action: 'copy', image };
  if (lookup.isPending(image)) return { action: 'attach', image };
  const now = lookup.failedNow(image);
  if (now !== undefined) return { action: 'fail', outcome: now };
  const previous = lookup.previousFailure(row);
  if (previous === undefined && lookup.isLeftUnlessFailed(image)) return { action: 'leave' };
  if (previous === undefined || previous.image !== image) return { action: 'submit', image };
  if (isPermanent(previous.outcome.code) && !lookup.isTakenUp(image))
    return { action: 'fail', outcome: previous.outcome };
  return { action: 'submit', image, previous };
}
