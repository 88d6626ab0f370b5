import { describe, expect, test } from 'vitest';
import type { Row } from '../../src/producer/row-reader.js';
import { PayBudget } from '../../src/run/budget.js';
import { Ledger } from '../../src/run/ledger.js';
import { type Decision, RowDecisions } from '../../src/run/row-decisions.js';
import { ERROR_CODES, type ErrorCode, type FailedOutcome } from '../../src/shared/jobs.js';
import type { FailuresFile } from '../../src/writer/failures.js';
import { OutputIndex } from '../../src/writer/output-index.js';

const row: Row = { number: 1, line: 2, cells: ['k', 'u'], key: 'k', url: 'http://h.test/1', image: 'image' };
const failed = (code: ErrorCode): FailedOutcome => ({ status: 'failed', code, reason: 'why', attempts: 2 });

interface Known
  extends
    Partial<Pick<RowDecisions, 'previousFailure' | 'isTakenUp' | 'isLeftUnlessFailed'>>,
    Partial<Pick<Ledger, 'isPending'> & Pick<FailuresFile, 'failedNow'>> {
  readonly markSeen?: OutputIndex['markSeen'];
  readonly isInOutput?: OutputIndex['take'];
  readonly isDescribed?: OutputIndex['hasImage'];
}

/** Nothing is known, but for what a case says. */
function know(known: Known = {}): RowDecisions {
  const { markSeen, isInOutput, isDescribed, isPending, failedNow = () => undefined, ...own } = known;
  const onFile = new OutputIndex({ keyed: false });
  onFile.startPass();
  const ledger = new Ledger(new PayBudget(Infinity));
  if (markSeen !== undefined) onFile.markSeen = markSeen;
  if (isInOutput !== undefined) onFile.take = isInOutput;
  if (isDescribed !== undefined) onFile.hasImage = isDescribed;
  if (isPending !== undefined) ledger.isPending = isPending;
  const deps = { ledger, onFile, failures: { failedNow }, failedBefore: new Map(), retriesAll: false };
  return Object.assign(new RowDecisions(deps), own);
}

const submit: Decision = { action: 'submit', image: 'image' };
const failsWith = (code: ErrorCode) => ({ action: 'fail', outcome: { code } });
const before = (code: ErrorCode, image?: string) => ({ outcome: failed(code), image });

describe('what becomes of a row', () => {
  test.each<[string, Row, Known, object]>([
    ['a new one is submitted', row, {}, submit],
    [
      'one with a problem fails, and neither key nor occurrence is used up',
      { ...row, problem: { code: 'invalid-url', reason: 'line 2: no URL' } },
      { markSeen: never, isInOutput: never },
      failsWith('invalid-url'),
    ],
    ['a second one with a key fails', row, { markSeen: () => false }, failsWith('duplicate-key')],
    ['one that the output has is resumed', row, { isInOutput: () => true }, { action: 'resume' }],
    [
      'the output counts before a failure',
      row,
      { isInOutput: () => true, previousFailure: never },
      { action: 'resume' },
    ],
    [
      'one whose image the output has is copied',
      row,
      { isDescribed: () => true },
      { action: 'copy', image: 'image' },
    ],
    [
      'one whose image is outstanding waits for it',
      row,
      { isPending: () => true },
      { action: 'attach', image: 'image' },
    ],
    [
      'one whose image is on disk while others still wait for it follows them',
      row,
      { isDescribed: () => true, isPending: () => true },
      { action: 'attach', image: 'image' },
    ],
    [
      'one whose image has failed in this run fails as well',
      row,
      { failedNow: () => failed('http') },
      failsWith('http'),
    ],
    [
      'what failed in this run counts before what failed earlier',
      row,
      { failedNow: () => failed('http'), previousFailure: () => before('rejected', 'image') },
      failsWith('http'),
    ],
    [
      'a permanent failure over another URL says nothing',
      row,
      { previousFailure: () => before('rejected', 'other') },
      submit,
    ],
    ['a row that had no URL is new', row, { previousFailure: () => before('invalid-url') }, submit],
    [
      'where failed rows alone are taken up, one that has never failed is left',
      row,
      { isLeftUnlessFailed: () => true },
      { action: 'leave' },
    ],
    [
      'there one that has failed is taken up, also with another URL',
      row,
      { isLeftUnlessFailed: () => true, previousFailure: () => before('deadline', 'other') },
      submit,
    ],
    [
      'there one that costs nothing is not left',
      row,
      { isLeftUnlessFailed: () => true, isPending: () => true },
      { action: 'attach', image: 'image' },
    ],
    [
      'a permanent failure that somebody has taken up again is waited for',
      row,
      { previousFailure: () => before('rejected', 'image'), isTakenUp: () => true },
      { action: 'submit', image: 'image', previous: before('rejected', 'image') },
    ],
  ])('%s', (_title, given, known, decision) => {
    expect(know(known).decide(given)).toMatchObject(decision);
  });

  test.each(ERROR_CODES)('after %s: again, unless only another manifest can help', (code) => {
    const decision = know({ previousFailure: () => before(code, 'image') }).decide(row);
    const permanent = ['invalid-url', 'rejected', 'bad-record', 'duplicate-key'].includes(code);
    expect(decision).toEqual(
      permanent
        ? { action: 'fail', outcome: failed(code) }
        : { action: 'submit', image: 'image', previous: before(code, 'image') },
    );
  });

  test('asked again about a row it uses nothing up', () => {
    const known = know({ markSeen: never, isInOutput: never });
    expect(known.decideImage(row)).toEqual(submit);
    expect(known.decideImage(row)).toEqual(submit);
  });
});

function never(): never {
  throw new Error('nobody should ask');
}
