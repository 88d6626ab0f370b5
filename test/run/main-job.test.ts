import { appendFile, readFile, rename, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { RunEvent, RunOptions } from '../../src/run/run-options.js';
import { verifyOutput } from '../../src/run/verify-output.js';
import { type Simulator, startSimulator } from '../../src/simulator/simulator.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

const EXAMPLE = new URL('../../examples/paintings.csv', import.meta.url);

describeOnBothQueues('the main job', (openQueue) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;

  beforeAll(async () => {
    queue = await openQueue();
  });
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 30 });
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });
  afterAll(() => queue.cleanup());

  /** Runs a manifest against the simulator, as fast as that goes. */
  async function run(options: Partial<RunOptions> & { manifest: string }) {
    const rate = { count: 500, perMs: 1000 };
    const result = await describeManifest({
      api: simulator.url,
      token: 'any',
      queue: queue.url,
      output: workspace.at('out.csv'),
      limits: { rate, pollRate: rate, maxInFlight: 20 },
      ...options,
    });
    if (result.receipt === undefined) throw new Error('no receipt');
    expect(result.receipt.balanced).toBe(true);
    return { ...result, receipt: result.receipt };
  }

  it('describes each image once, copies rows that share one, fails rows without a URL, and resumes', async () => {
    const manifest = await workspace.write('paintings.csv', await readFile(EXAMPLE));
    const first = await run({ manifest });
    expect(first.receipt).toMatchObject({
      rows: 24,
      described: 22,
      copied: 1,
      failed: 1,
      submits: 22,
      complete: true,
    });
    expect(first.exitCode).toBe(2);
    expect(simulator.stats().paid).toBe(22);
    const failures = await workspace.records('out.failed.csv');
    expect(failures).toMatchObject([{ error_code: 'invalid-url', attempts: '0', message_id: '' }]);

    const again = await run({ manifest });
    expect(again.receipt).toMatchObject({
      described: 0,
      copied: 0,
      resumed: 23,
      failed: 1,
      submits: 0,
      polls: 0,
    });
    expect(simulator.stats().paid).toBe(22);
    expect(await verifyOutput({ manifest, output: workspace.at('out.csv') })).toEqual({
      rows: 24,
      described: 23,
      failed: 1,
      missing: 0,
      extra: 0,
      twice: 0,
    });
  });

  it('keeps every manifest cell unchanged, with our columns after them', async () => {
    const text =
      'title,image\n"a ""quoted"", title\nin two lines",http://h.test/1.jpg\n Ünïcode \u{1f600} ,http://h.test/2.jpg\n';
    const manifest = await workspace.write('m.csv', text);
    await run({ manifest });
    const records = await workspace.records('out.csv');
    expect(Object.keys(records[0] ?? {})).toEqual(
      'title image prompt_1 prompt_2 prompt_3 prompt_4 message_id described_at'.split(' '),
    );
    expect(records.map((record) => record['title']).sort()).toEqual([
      ' Ünïcode \u{1f600} ',
      'a "quoted", title\nin two lines',
    ]);
    expect(records[0]?.['prompt_1']).not.toMatch(/\u20e3/);
    expect(records[0]?.['message_id']).toMatch(/^sim-/);
    expect(records[0]?.['described_at']).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
  });

  it.each([
    ['m.tsv', 'id\timage\n1\thttp://h.test/1.jpg\n'],
    ['m.jsonl', '{"id":1,"image":"http://h.test/1.jpg"}\n'],
    ['m.list', 'http://h.test/1.jpg\n'],
    ['semicolon.csv', '\ufeffid;image\r\n1;http://h.test/1.jpg\r\n'],
    ['m.csv.gz', gzipSync(manifestOf(1))],
  ])('reads %s', async (name, content) => {
    const manifest = await workspace.write(name, content);
    const { receipt } = await run({ manifest });
    expect(receipt).toMatchObject({ rows: 1, described: 1 });
  });

  it('takes relative paths with a base URL', async () => {
    const manifest = await workspace.write('m.csv', 'image_path\na/1.jpg\n/b/2.jpg\n');
    await run({ manifest, baseUrl: 'http://h.test/base/' });
    expect([...simulator.stats().paidByUrl.keys()].sort()).toEqual([
      'http://h.test/b/2.jpg',
      'http://h.test/base/a/1.jpg',
    ]);
  });

  it('identifies rows by their key: a changed URL host is not paid again, a second row with a key fails', async () => {
    const manifest = await workspace.write(
      'm.csv',
      'id,image\n1,http://a.test/1.jpg\n2,http://a.test/2.jpg\n2,http://a.test/3.jpg\n',
    );
    const first = await run({ manifest, keyColumn: 'id' });
    expect(first.receipt).toMatchObject({ described: 2, failed: 1 });
    expect([...first.failedByCode]).toEqual([['duplicate-key', 1]]);
    await workspace.write('m.csv', 'id,image\n1,http://b.test/1.jpg\n2,http://b.test/2.jpg\n');
    expect((await run({ manifest, keyColumn: 'id' })).receipt).toMatchObject({
      resumed: 2,
      failed: 0,
      submits: 0,
    });
    expect(await workspace.files()).not.toContain('out.failed.csv');
  });

  it('pays for at most --limit images, and leaves the others for the next time', async () => {
    const manifest = await workspace.write('m.csv', `${manifestOf(10)}11,http://images.test/1.jpg\n12,\n`);
    const first = await run({ manifest, limit: 4 });
    expect(first.receipt).toMatchObject({
      rows: 12,
      described: 4,
      copied: 1,
      failed: 1,
      remaining: 6,
      submits: 4,
    });
    const rest = await run({ manifest, limit: 100 });
    expect(rest.receipt).toMatchObject({ resumed: 5, described: 6, failed: 1, remaining: 0, submits: 6 });
  });

  it('a failed image gives its place of --limit back', async () => {
    simulator.setOptions({ failures: { reject: 0.5 } });
    const manifest = await workspace.write('m.csv', manifestOf(40));
    const { receipt } = await run({ manifest, limit: 5 });
    expect(receipt.described).toBe(5);
    expect(receipt.failed).toBeGreaterThan(0);
  });

  it('does not try rejected rows again, tries other failed rows again after the new ones', async () => {
    const manifest = await workspace.write('m.csv', manifestOf(3));
    simulator.setOptions({ failures: { reject: 1 } });
    await run({ manifest });
    expect((await run({ manifest })).receipt).toMatchObject({ failed: 3, submits: 0 });

    const other = await workspace.write('other.csv', manifestOf(2, 'http://other.test'));
    const output = workspace.at('other.out.csv');
    simulator.setOptions({ failures: { incomplete: 1 } });
    const failed = await run({ manifest: other, output, attempts: 1 });
    expect([...failed.failedByCode]).toEqual([['incomplete', 2]]);
    simulator.setOptions({ failures: {} });
    await appendFile(other, '3,http://other.test/3.jpg\n');
    const retried = await run({ manifest: other, output });
    expect(retried.receipt).toMatchObject({ described: 3, failed: 0, submits: 3 });
    const urls = (await workspace.records('other.out.csv')).map((record) => record['id']);
    expect(urls[0]).toBe('3');
    expect(await workspace.files()).not.toContain('other.out.failed.csv');
  });

  it('submits again, as an attempt, when a message expires', async () => {
    simulator.setOptions({ failures: { incomplete: 0.4 } });
    const manifest = await workspace.write('m.csv', manifestOf(20));
    const { receipt } = await run({ manifest, attempts: 30 });
    expect(receipt.described).toBe(20);
    expect(receipt.submits).toBe(simulator.stats().paid);
    expect(receipt.submits).toBeGreaterThan(20);
  });

  it('stops when more than half of the last 50 outcomes are rejected, exit 4', async () => {
    simulator.setOptions({ failures: { reject: 1 } });
    const manifest = await workspace.write('m.csv', manifestOf(300));
    const rate = { count: 100, perMs: 1000 };
    const { receipt, exitCode, stop } = await run({
      manifest,
      limits: { rate, pollRate: rate, maxInFlight: 5 },
    });
    expect([exitCode, stop?.kind]).toEqual([4, 'failing']);
    expect(receipt.remaining).toBeGreaterThan(100);
  });

  it('ends with exit 3 when the token is refused, with nothing lost', async () => {
    simulator.setOptions({ token: 'right' });
    const manifest = await workspace.write('m.csv', manifestOf(20));
    const refused = await run({ manifest, token: 'wrong' });
    expect([refused.exitCode, refused.stop?.kind]).toEqual([3, 'token']);
    expect(refused.receipt).toMatchObject({ described: 0, failed: 0 });
    const { receipt } = await run({ manifest, token: 'right' });
    expect(receipt).toMatchObject({ rows: 20, described: 20, submits: 20 });
  });

  it('ends with exit 3 when the quota is spent, after a handful of calls', async () => {
    simulator.setOptions({ failures: { quota: 1 } });
    const manifest = await workspace.write('m.csv', manifestOf(100));
    const fast = { count: 500, perMs: 1000 };
    const few = { rate: fast, pollRate: fast, maxInFlight: 5 };
    const { exitCode, stop } = await run({ manifest, limits: few });
    expect([exitCode, stop?.kind]).toEqual([3, 'quota']);
    expect(simulator.stats().submits).toBeLessThan(20);
    simulator.setOptions({ failures: {} });
    expect((await run({ manifest })).receipt.described).toBe(100);
  });

  it('interrupted, it hands what is in flight back, and the next run pays for nothing again', async () => {
    simulator.setOptions({ latencyMs: 1500, latencySpread: 0 });
    const manifest = await workspace.write('m.csv', manifestOf(30));
    const interrupt = new AbortController();
    const running = run({ manifest, signal: interrupt.signal });
    await waitUntil('ten are in flight', () => simulator.stats().paid >= 10);
    interrupt.abort();
    const { receipt, exitCode } = await running;
    expect(exitCode).toBe(130);
    expect(receipt.remaining).toBeGreaterThan(0);
    expect(receipt.submits).toBe(simulator.stats().paid);
    simulator.setOptions({ latencyMs: 30 });
    const resumed = await run({ manifest });
    expect(resumed.receipt.described + resumed.receipt.resumed).toBe(30);
    expect(resumed.receipt.reattached).toBe(receipt.submits - receipt.described);
    expect(simulator.stats().paid).toBe(30);
  });

  it('goes on in another folder when output, failures and run file are moved together', async () => {
    const manifest = await workspace.write('m.csv', manifestOf(6));
    await run({ manifest, limit: 3 });
    await rename(workspace.at('out.csv'), workspace.at('moved.csv'));
    await rename(workspace.at('out.csv.run'), workspace.at('moved.csv.run'));
    const { receipt } = await run({ manifest, output: workspace.at('moved.csv') });
    expect(receipt).toMatchObject({ resumed: 3, described: 3, remaining: 0 });
  });

  it('recovers an output with a torn last record', async () => {
    const manifest = await workspace.write('m.csv', manifestOf(3));
    await run({ manifest });
    const whole = await workspace.read('out.csv');
    await writeFile(workspace.at('out.csv'), whole.slice(0, -20));
    const { receipt } = await run({ manifest });
    expect(receipt).toMatchObject({ resumed: 2, remaining: 0 });
    expect((await workspace.records('out.csv')).map((record) => record['id']).sort()).toEqual([
      '1',
      '2',
      '3',
    ]);
  });

  it('finishes what is in flight when the manifest breaks off, and exits 1 with the line', async () => {
    const manifest = await workspace.write('m.csv', `${manifestOf(150)}151,"http://h.test/never ends\n`);
    const { receipt, exitCode, stop } = await run({ manifest });
    expect(exitCode).toBe(1);
    expect(stop?.reason).toMatch(/m\.csv.*line 152/);
    expect(receipt).toMatchObject({ complete: false, rows: 150, described: 150 });
  });

  it('a bad record later in the manifest fails alone, with its line', async () => {
    const manifest = await workspace.write(
      'm.csv',
      `${manifestOf(120)}121\n122,http://images.test/122.jpg,surplus\n`,
    );
    const { receipt } = await run({ manifest });
    expect(receipt).toMatchObject({ described: 120, failed: 2 });
    const failures = await workspace.records('out.failed.csv');
    expect(failures.map((failure) => [failure['error_code'], failure['error']])).toEqual([
      ['bad-record', expect.stringContaining('line 122')],
      ['bad-record', expect.stringContaining('line 123')],
    ]);
  });

  it('tells its events: a preview before anything is paid, then progress', async () => {
    const manifest = await workspace.write('m.csv', manifestOf(5));
    const events: RunEvent[] = [];
    simulator.setOptions({ latencyMs: 1500 });
    await run({
      manifest,
      onEvent: (event) => {
        if (event.type === 'preview') expect(simulator.stats().submits).toBe(0);
        events.push(event);
      },
    });
    const types = events.map(({ type }) => type).filter((type) => type !== 'phase');
    expect(types[0]).toBe('preview');
    expect(types).toContain('progress');
  });

  it('a second run of the same output is refused with exit 5', async () => {
    simulator.setOptions({ latencyMs: 1000 });
    const manifest = await workspace.write('m.csv', manifestOf(3));
    const first = run({ manifest });
    await waitUntil('the first one has begun', () => simulator.stats().paid > 0);
    await expect(run({ manifest })).rejects.toMatchObject({
      exitCode: 5,
      message: /another process has the output/,
    });
    expect((await first).exitCode).toBe(0);
  });
});
