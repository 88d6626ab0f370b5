import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decideImage } from '../../src/producer/decide-row.js';
import { imageHash } from '../../src/producer/image-url.js';
import { PayBudget, type QueuedJob } from '../../src/producer/produce.js';
import type { Row } from '../../src/producer/row-reader.js';
import { Home } from '../../src/run/home.js';
import type { ResultJobData } from '../../src/shared/jobs.js';
import type { ErrorCode } from '../../src/shared/outcome.js';
import { FailuresFile } from '../../src/writer/failures.js';
import { OutputFile } from '../../src/writer/output-file.js';
import { Workspace } from '../helpers/workspace.js';

const url = (name: string) => `http://h.test/${name}`;
const row = (number: number, name: string): Row => ({
  number,
  line: number + 1,
  cells: [String(number), url(name)],
  url: url(name),
  image: imageHash(url(name)),
});

function described(name: string, calls = { submits: 1, polls: 2 }): ResultJobData {
  const at = '2026-01-02T03:04:05.678Z';
  const outcome = {
    status: 'described',
    prompts: ['a', 'b', 'c', 'd'],
    messageId: `m-${name}`,
    describedAt: at,
  } as const;
  return { image: imageHash(url(name)), outcome, ...calls, maybePaid: 0 };
}

function failed(name: string, code: ErrorCode = 'http'): ResultJobData {
  const outcome = { status: 'failed', code, reason: 'why', attempts: 5 } as const;
  return { image: imageHash(url(name)), outcome, submits: 5, polls: 0, maybePaid: 1 };
}

describe('a home', () => {
  let workspace: Workspace;
  let output: OutputFile;
  let failures: FailuresFile;
  let home: Home;
  let broken: unknown[];
  let outcomes: ResultJobData[];

  beforeEach(async () => {
    workspace = await Workspace.create();
    await open();
  });
  afterEach(async () => {
    await output.close();
    await failures.close();
    await workspace.remove();
  });

  async function open(): Promise<void> {
    const options = { columns: ['id', 'image'], delimiter: ',', urlColumn: 1, resolveUrl: imageHash };
    output = await OutputFile.open({ ...options, path: workspace.at('out.csv'), create: true });
    failures = await FailuresFile.open({ ...options, path: workspace.at('out.failed.csv') });
    [broken, outcomes] = [[], []];
    home = new Home({
      output,
      failures,
      budget: new PayBudget(Infinity),
      onBroken: (error) => broken.push(error),
      keepLostSubmits: () => Promise.resolve(),
      onOutcome: (result) => outcomes.push(result),
    });
  }

  /** The row is handed to the queue. */
  function take(taken: Row): void {
    const pending = { rows: [taken], submitsBefore: 0, pollsBefore: 0, reattached: false };
    home.outstanding.add(taken.image ?? '', pending);
  }

  const ids = async () => (await workspace.records('out.csv')).map((record) => record['id']);
  const failedIds = async () =>
    (await workspace.records('out.failed.csv.partial')).map((record) => record['id']);
  const known = () => ({ ...home.lookup, isTakenUp: () => false, isLeftUnlessFailed: () => false });

  it('acknowledges a result when all rows of its image are on disk, and counts them', async () => {
    take(row(1, 'a'));
    home.outstanding.attach(imageHash(url('a')), row(2, 'a'));
    expect(await home.settle(described('a'))).toBe('done');
    expect(await ids()).toEqual(['1', '2']);
    expect(home.counts).toMatchObject({ described: 1, copied: 1, submits: 1, polls: 2 });
    expect([home.isBusy, outcomes.length]).toEqual([false, 1]);
  });

  it('copies for rows that come while their image goes to disk; nobody submits it again', async () => {
    take(row(1, 'a'));
    const settled = home.settle(described('a'));
    expect(decideImage(row(2, 'a'), known()).action).toBe('attach');
    home.outstanding.attach(imageHash(url('a')), row(2, 'a'));
    expect(await settled).toBe('done');
    expect(home.isBusy).toBe(true);
    expect(decideImage(row(3, 'a'), known()).action).toBe('copy');
    await home.flushed();
    await home.outstanding.until(() => !home.isBusy, AbortSignal.timeout(5000));
    expect((await ids()).sort()).toEqual(['1', '2']);
    expect(home.counts).toMatchObject({ described: 1, copied: 1 });
  });

  it('fails rows that come while the failure of their image goes to disk', async () => {
    take(row(1, 'a'));
    const settled = home.settle(failed('a'));
    home.outstanding.attach(imageHash(url('a')), row(2, 'a'));
    await settled;
    expect(decideImage(row(3, 'a'), known())).toMatchObject({ action: 'fail', outcome: { code: 'http' } });
    await home.outstanding.until(() => !home.isBusy, AbortSignal.timeout(5000));
    expect((await failedIds()).sort()).toEqual(['1', '2']);
    expect([...home.counts.failedByCode]).toEqual([['http', 2]]);
    expect(home.counts.maybePaidTwice).toBe(1);
  });

  it('drops a second result of an image, while the first is written and after', async () => {
    take(row(1, 'a'));
    const both = [home.settle(described('a')), home.settle(described('a'))];
    expect(await Promise.all(both)).toEqual(['done', 'done']);
    expect(await home.settle(failed('a'))).toBe('done');
    expect(await ids()).toEqual(['1']);
    expect(home.counts).toMatchObject({ described: 1, submits: 1 });
  });

  it('writes prompts that follow a failure in its place, with the rows that failed with it', async () => {
    take(row(1, 'a'));
    home.outstanding.attach(imageHash(url('a')), row(2, 'a'));
    const first = home.settle(failed('a'));
    const second = home.settle(described('a', { submits: 7, polls: 3 }));
    expect(await Promise.all([first, second])).toEqual(['done', 'done']);
    expect(await ids()).toEqual(['1', '2']);
    expect(home.counts).toMatchObject({ described: 1, copied: 1, submits: 7, polls: 3 });
    expect(home.counts.failedByCode.size).toBe(0);
    expect(home.isBusy).toBe(false);
    expect(decideImage(row(3, 'a'), known())).toMatchObject({ action: 'copy' });
  });

  it('keeps prompts that follow a failure when the run is over, for the next start', async () => {
    take(row(1, 'a'));
    expect(await home.settle(failed('a'))).toBe('done');
    home.releaseEarlyResults(true);
    expect(await home.settle(described('a'))).toBe('put-back');
    expect(await failedIds()).toEqual(['1']);
    expect(await ids()).toEqual([]);
  });

  it('keeps the prompts of an image that failed long ago for the next start', async () => {
    const names = Array.from({ length: 1001 }, (_, index) => `image${index}`);
    for (const [index, name] of names.entries()) {
      take(row(index + 1, name));
      await home.settle(failed(name));
    }
    expect(await home.settle(described('image1000'))).toBe('done');
    const held = home.settle(described('image0'));
    home.releaseEarlyResults(true);
    expect(await held).toBe('put-back');
    expect(await ids()).toEqual(['1001']);
  });

  it('holds a result whose row is still to come, unacknowledged', async () => {
    let disposal: string | undefined;
    const held = home.settle(described('a')).then((end) => (disposal = end));
    home.begin();
    await home.flushed();
    expect([home.hasEarlyResult(imageHash(url('a'))), disposal]).toEqual([true, undefined]);
    take(row(1, 'a'));
    home.settleEarlyResult(imageHash(url('a')), undefined);
    expect(await held).toBe('done');
    expect(await ids()).toEqual(['1']);
    // Its calls were made before this run.
    expect(home.counts).toMatchObject({ described: 1, submits: 0, polls: 0 });
  });

  it('counts the calls of this run for a result that came during it, before its row', async () => {
    home.begin();
    const held = home.settle(described('a', { submits: 3, polls: 9 }));
    take(row(1, 'a'));
    const queued: QueuedJob = { state: 'waiting', submits: 1, polls: 4 };
    const pending = home.outstanding.images.get(imageHash(url('a')));
    Object.assign(pending ?? {}, { submitsBefore: queued.submits, pollsBefore: queued.polls });
    home.settleEarlyResult(imageHash(url('a')), queued);
    expect(await held).toBe('done');
    expect(home.counts).toMatchObject({ submits: 2, polls: 5 });
  });

  it('makes a result again from a completed job whose row was lost since', async () => {
    take(row(1, 'a'));
    const result = described('a', { submits: 1, polls: 4 });
    home.settleEarlyResult(imageHash(url('a')), { state: 'paid', submits: 1, polls: 4, result });
    await home.outstanding.until(() => !home.isBusy, AbortSignal.timeout(5000));
    expect(await ids()).toEqual(['1']);
    expect(home.counts).toMatchObject({ described: 1, submits: 0, polls: 0 });
  });

  it.each([
    ['prompts, then a failure', ['described', 'failed']],
    ['a failure, then prompts', ['failed', 'described']],
  ])('of two early results prompts count: %s', async (_order, kinds) => {
    const held = kinds.map((kind) => home.settle(kind === 'described' ? described('a') : failed('a')));
    home.begin();
    take(row(1, 'a'));
    home.settleEarlyResult(imageHash(url('a')), undefined);
    expect(await Promise.all(held)).toEqual(['done', 'done']);
    expect(await ids()).toEqual(['1']);
    expect([...home.counts.failedByCode]).toEqual([]);
  });

  it('tries a failure from before the run again; it is acknowledged when the image is taken on', async () => {
    const held = home.settle(failed('a', 'deadline'));
    home.begin();
    expect(home.hasEarlyResult(imageHash(url('a')))).toBe(false);
    expect(decideImage(row(1, 'a'), known())).toMatchObject({
      action: 'submit',
      previous: { outcome: { code: 'deadline' } },
    });
    take(row(1, 'a'));
    home.settleEarlyResult(imageHash(url('a')), { state: 'failed', submits: 5, polls: 0 });
    expect(await held).toBe('done');
    expect(home.outstanding.images.size).toBe(1);
    expect(await home.settle(described('a'))).toBe('done');
    expect(await ids()).toEqual(['1']);
  });

  it('does not try a permanent failure from before the run again', () => {
    void home.settle(failed('a', 'rejected'));
    home.begin();
    expect(decideImage(row(1, 'a'), known())).toMatchObject({
      action: 'fail',
      outcome: { code: 'rejected' },
    });
  });

  it('does not try again what has failed in this run before its row came', async () => {
    home.begin();
    const held = home.settle(failed('a'));
    expect(home.hasEarlyResult(imageHash(url('a')))).toBe(true);
    take(row(1, 'a'));
    home.settleEarlyResult(imageHash(url('a')), { state: 'paid', submits: 1, polls: 0 });
    expect(await held).toBe('done');
    expect(await failedIds()).toEqual(['1']);
    expect(home.counts).toMatchObject({ submits: 5 });
  });

  it.each([
    ['whose manifest was read to its end, failures are dropped', true, 'done'],
    ['that was stopped, failures stay as well', false, 'put-back'],
  ])('at the end of a run %s; prompts stay in the queue', async (_how, isWhole, ofFailure) => {
    const held = [home.settle(described('a')), home.settle(failed('b'))];
    home.releaseEarlyResults(isWhole);
    expect(await Promise.all(held)).toEqual(['put-back', ofFailure]);
    // One that comes even later is not held any more: the run could not end.
    expect(await home.settle(described('c'))).toBe('put-back');
  });

  it('puts a result back when the disk does not take its rows, and says so', async () => {
    take(row(1, 'a'));
    take(row(2, 'b'));
    await output.close();
    expect(await home.settle(described('a'))).toBe('put-back');
    expect(await home.settle(failed('b'))).toBe('put-back');
    expect(broken).toHaveLength(2);
    expect(home.isBusy).toBe(true);
    expect([outcomes.length, home.counts.described, home.counts.failedByCode.size]).toEqual([0, 0, 0]);
  });
});
