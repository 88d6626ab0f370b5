import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { verifyOutput } from '../../src/run/receipt.js';
import type { RunEvent } from '../../src/run/run-options.js';
import { readRunFile } from '../../src/writer/run-file.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { describeOnAnyQueue } from '../helpers/queues.js';
import { manifestOf } from '../helpers/workspace.js';

const EXAMPLE = new URL('../../examples/paintings.csv', import.meta.url);

describeOnAnyQueue('the main job', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('describes each image once, copies rows that share one, fails rows without a URL, and resumes', async () => {
    const manifest = await fixture.workspace.write('paintings.csv', await readFile(EXAMPLE));
    const first = await fixture.run({ manifest });
    expect(first.receipt).toMatchObject({
      rows: 24,
      described: 22,
      copied: 1,
      failed: 1,
      submits: 22,
      complete: true,
    });
    expect(first.exitCode).toBe(2);
    expect(fixture.simulator.stats().paid).toBe(22);
    const failures = await fixture.workspace.records('out.failed.csv');
    expect(failures).toMatchObject([{ error_code: 'invalid-url', attempts: '0', message_id: '' }]);

    const again = await fixture.run({ manifest });
    expect(again.receipt).toMatchObject({
      described: 0,
      copied: 0,
      resumed: 23,
      failed: 1,
      submits: 0,
      polls: 0,
    });
    expect(fixture.simulator.stats().paid).toBe(22);
    expect(await verifyOutput({ manifest, output: fixture.workspace.at('out.csv') })).toEqual({
      rows: 24,
      described: 23,
      failed: 1,
      missing: 0,
      extra: 0,
      twice: 0,
    });
  });

  test('keeps every manifest cell unchanged, with our columns after them', async () => {
    const text =
      'title,image\n"a ""quoted"", title\nin two lines",http://h.test/1.jpg\n Ünïcode \u{1f600} ,http://h.test/2.jpg\n';
    const manifest = await fixture.workspace.write('m.csv', text);
    await fixture.run({ manifest });
    const records = await fixture.workspace.records('out.csv');
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

  test.each([
    ['m.tsv', 'id\timage\n1\thttp://h.test/1.jpg\n'],
    ['m.jsonl', '{"id":1,"image":"http://h.test/1.jpg"}\n'],
    ['m.list', 'http://h.test/1.jpg\n'],
    ['semicolon.csv', '\ufeffid;image\r\n1;http://h.test/1.jpg\r\n'],
    ['m.csv.gz', gzipSync(manifestOf(1))],
  ])('reads %s', async (name, content) => {
    const manifest = await fixture.workspace.write(name, content);
    const { receipt } = await fixture.run({ manifest });
    expect(receipt).toMatchObject({ rows: 1, described: 1 });
  });

  test('takes relative paths with a base URL', async () => {
    const manifest = await fixture.workspace.write('m.csv', 'image_path\na/1.jpg\n/b/2.jpg\n');
    await fixture.run({ manifest, baseUrl: 'http://h.test/base/' });
    expect([...fixture.simulator.stats().paidByUrl.keys()].sort()).toEqual([
      'http://h.test/b/2.jpg',
      'http://h.test/base/a/1.jpg',
    ]);
  });

  test('identifies rows by their key: a changed URL host is not paid again, a second row with a key fails', async () => {
    const manifest = await fixture.workspace.write(
      'm.csv',
      'id,image\n1,http://a.test/1.jpg\n2,http://a.test/2.jpg\n2,http://a.test/3.jpg\n',
    );
    const first = await fixture.run({ manifest, keyColumn: 'id' });
    expect(first.receipt).toMatchObject({ described: 2, failed: 1 });
    expect([...first.failedByCode]).toEqual([['duplicate-key', 1]]);
    await fixture.workspace.write('m.csv', 'id,image\n1,http://b.test/1.jpg\n2,http://b.test/2.jpg\n');
    expect((await fixture.run({ manifest, keyColumn: 'id' })).receipt).toMatchObject({
      resumed: 2,
      failed: 0,
      submits: 0,
    });
    expect(await fixture.workspace.files()).not.toContain('out.failed.csv');
  });

  test('what a later start tells rows and images by is what its output is verified by from then on', async () => {
    const { workspace } = fixture;
    const output = workspace.at('out.csv');
    const manifest = await workspace.write('m.csv', 'id,image,large\n1,1.jpg,1-l.jpg\n2,2.jpg,2-l.jpg\n');
    await fixture.run({ manifest, urlColumn: 'image', baseUrl: 'http://a.test/' });
    await workspace.write('m.csv', 'id,image,large\n1,1.jpg?2,1-l.jpg?2\n2,2.jpg?2,2-l.jpg?2\n');
    const later = { keyColumn: 'id', urlColumn: 'large', baseUrl: 'http://b.test/' };
    expect((await fixture.run({ manifest, ...later })).receipt).toMatchObject({ resumed: 2, submits: 0 });
    expect(await readRunFile(`${output}.run`)).toMatchObject(later);
    expect(await verifyOutput({ manifest, output })).toMatchObject({ described: 2, missing: 0, extra: 0 });
    await fixture.run({ manifest, ...later, baseUrl: undefined, imageRoot: workspace.path });
    expect(await verifyOutput({ manifest, output })).toMatchObject({ described: 2, missing: 0, extra: 0 });
  });

  test('an output keeps its key column where a later start names none, which is said', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(2));
    await fixture.run({ manifest, keyColumn: 'id' });
    await workspace.write('m.csv', manifestOf(3, 'http://moved.test'));
    const notices: string[] = [];
    const onEvent = (event: RunEvent) => {
      if (event.type === 'notice') notices.push(event.text);
    };
    const { receipt } = await fixture.run({ manifest, onEvent });
    expect(receipt).toMatchObject({ resumed: 2, described: 1, submits: 1, extra: 0 });
    expect(notices).toEqual([
      'rows are known by the column id, as in earlier starts; --key-column would name another one',
    ]);
  });

  test('a bad record later in the manifest fails alone, with its line', async () => {
    const manifest = await fixture.workspace.write(
      'm.csv',
      `${manifestOf(120)}121,,surplus\n122,http://images.test/122.jpg,surplus\n`,
    );
    const { receipt } = await fixture.run({ manifest });
    expect(receipt).toMatchObject({ described: 120, failed: 2 });
    const failures = await fixture.workspace.records('out.failed.csv');
    expect(failures.map((failure) => [failure['error_code'], failure['error']])).toEqual([
      ['bad-record', expect.stringContaining('line 122')],
      ['bad-record', expect.stringContaining('line 123')],
    ]);
  });
});
