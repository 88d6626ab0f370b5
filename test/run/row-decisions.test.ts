import { describe, expect, test } from 'vitest';
import type { Row } from '../../src/producer/row-reader.js';
import { PayBudget } from '../../src/run/budget.js';
import { Ledger } from '../../src/run/ledger.js';
import { type Decision, RowDecisions } from '../../src/run/row-decisions.js';
import type { QueuedJob } from '../../src/run/run-jobs.js';
import { ERROR_CODES, type ErrorCode, type FailedOutcome } from '../../src/shared/jobs.js';
import type { FailuresFile } from '../../src/writer/failures.js';
import { OutputIndex, nameOfKey } from '../../src/writer/output-index.js';

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

describe('a row whose URL is another one than that which an earlier start has paid for', () => {
  const longKey = 'a key of more than twelve letters';
  const rowOf = (key: string, image = 'new'): Row => ({ ...row, key, image });
  const result = { image: 'old', submits: 1, polls: 1, maybePaid: 0 };

  /** A run that has found a job under the row's key. */
  function find(key: string, state: QueuedJob['state'] = 'paid') {
    const onFile = new OutputIndex({ keyed: true });
    const ledger = new Ledger(new PayBudget(Infinity));
    const failures = { failedNow: () => undefined };
    const deps = { ledger, onFile, failures, failedBefore: new Map(), retriesAll: false };
    const decisions = new RowDecisions(deps);
    decisions.find('old', { state, submits: 1, polls: 1, key: nameOfKey(key) });
    return { ledger, onFile, decisions };
  }

  test.each(['k', longKey])('takes on that image, and so do those that share its own: key %s', (key) => {
    const { ledger, decisions } = find(key);
    expect(decisions.asPaidFor(rowOf('other'))).toEqual(rowOf('other'));
    const taken = decisions.asPaidFor(rowOf(key));
    expect(taken).toEqual(rowOf(key, 'old'));
    ledger.takeOn('old', taken, true);
    expect(decisions.asPaidFor(rowOf('other'))).toEqual(rowOf('other', 'old'));
  });

  test.each<[string, (known: ReturnType<typeof find>) => void]>([
    ['it has failed since', ({ ledger }) => void ledger.hold({ ...result, outcome: failed('http') })],
    [
      'its own image is on file',
      ({ onFile }) => onFile.addFound({ key: 'x', image: 'new', file: 0, offset: 1 }),
    ],
    ['its own image is pending', ({ ledger }) => void ledger.takeOn('new', rowOf('x'), false)],
    ['another row waits for it', ({ ledger }) => void ledger.takeOn('old', rowOf('x', 'old'), true)],
  ])('has its own image when %s', (_title, happen) => {
    const known = find('k');
    happen(known);
    expect(known.decisions.asPaidFor(rowOf('k'))).toEqual(rowOf('k'));
  });

  test.each(['waiting', 'failed'] as const)('has its own image when nothing is paid for: %s', (state) => {
    expect(find('k', state).decisions.asPaidFor(rowOf('k'))).toEqual(rowOf('k'));
  });

  test.each(['k', longKey])('nobody needs what is in the queue for a row that is on file: key %s', (key) => {
    const { onFile, decisions } = find(key);
    const job = { key: nameOfKey(key) };
    expect(decisions.isDone('old', job)).toBe(false);
    onFile.addFound({ key, image: 'new', file: 0, offset: 1 });
    expect(decisions.isDone('old', job)).toBe(true);
    expect(decisions.isDone('old', {})).toBe(false);
  });
});

function never(): never {
  throw new Error('nobody should ask');
}
