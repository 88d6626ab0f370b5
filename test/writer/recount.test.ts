import { readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FAILURE_COLUMNS, MESSAGE_COLUMNS, PROMPT_COLUMNS } from '../../src/shared/jobs.js';
import { recountOutput, type RecountRow } from '../../src/writer/recount.js';
import { COLUMNS, described, formatRecord, imageOf, makeFolder, outputOptions } from './fixtures.js';

/** Rows are written `key image`; failures `key image code`. */
interface Case {
  readonly manifest: readonly (string | RecountRow)[];
  readonly output?: readonly string[];
  readonly failures?: readonly string[];
  readonly partial?: readonly string[];
  readonly keyed?: boolean;
}

function csv(columns: readonly string[], rows: readonly string[][]): string {
  return [columns, ...rows].map((cells) => formatRecord(cells, ',')).join('');
}

function failuresCsv(failures: readonly string[]): string {
  const rows = failures.map((text) => {
    const [key = '', image = '', code = 'network'] = text.split(' ');
    return [key, `https://${image}`, code, 'reason', '1', ''];
  });
  return csv([...COLUMNS, ...FAILURE_COLUMNS], rows);
}

function rowOf(text: string | RecountRow, keyed: boolean): RecountRow {
  if (typeof text !== 'string') return text;
  const [key = '', image = ''] = text.split(' ');
  return { key: keyed ? key : undefined, image: imageOf(`https://${image}`) };
}

async function* inBatches<T>(rows: readonly T[]): AsyncGenerator<readonly T[]> {
  for (let at = 0; at < rows.length; at += 2) {
    await setImmediate();
    yield rows.slice(at, at + 2);
  }
}

async function recount({ manifest, output, failures, partial, keyed = false }: Case) {
  const folder = await makeFolder();
  const path = join(folder, 'out.csv');
  const failuresPath = join(folder, 'out.failed.csv');
  const outputRows = output?.map((text) => {
    const [key = '', image = ''] = text.split(' ');
    return [key, `https://${image}`, ...described(image)];
  });
  if (outputRows) await writeFile(path, csv([...COLUMNS, ...PROMPT_COLUMNS, ...MESSAGE_COLUMNS], outputRows));
  if (failures) await writeFile(failuresPath, failuresCsv(failures));
  if (partial) await writeFile(`${failuresPath}.partial`, failuresCsv(partial));
  const before = await readdir(dirname(path));
  const counted = await recountOutput({
    ...outputOptions(path, keyed),
    failuresPath,
    rows: inBatches(manifest.map((row) => rowOf(row, keyed))),
  });
  expect(await readdir(dirname(path))).toEqual(before);
  return counted;
}

const none = { rows: 0, described: 0, failed: 0, missing: 0, extra: 0, twice: 0 };

test('without any output every row is missing', async () => {
  expect(await recount({ manifest: ['1 a', '2 b', '3 b'] })).toEqual({ ...none, rows: 3, missing: 3 });
});

test('without keys tells rows that share an image by how many there are', async () => {
  const manifest = ['1 a', '2 a', '3 a', '4 b', '5 c'];
  const counted = await recount({ manifest, output: ['1 a', '2 a', '9 x', '4 b', '4 b'], failures: ['5 c'] });
  expect(counted).toEqual({ rows: 5, described: 3, failed: 1, missing: 1, extra: 1, twice: 1 });
});

test('with keys tells rows by their keys, whatever their images', async () => {
  const counted = await recount({
    keyed: true,
    manifest: ['1 a', '2 a', '3 a', '4 b'],
    output: ['1 a', '1 a', '4 changed', '9 a', '9 a'],
    failures: ['2 a'],
  });
  expect(counted).toEqual({ rows: 4, described: 2, failed: 1, missing: 1, extra: 2, twice: 1 });
});

test('a second row with a key is failed only if the failures say so', async () => {
  const files = { keyed: true, manifest: ['1 a', '1 b', '1 c'], output: ['1 a'] };
  const counted = await recount({ ...files, failures: ['1 b duplicate-key'] });
  expect(counted).toEqual({ ...none, rows: 3, described: 1, failed: 1, missing: 1 });
});

test('rows with a problem are failed by the number of failures with its code', async () => {
  const problem = { code: 'invalid-url' } as const;
  const counted = await recount({
    manifest: [{ problem }, { problem }, { problem: { code: 'bad-record' } }, {}],
    output: [],
    failures: ['1 a invalid-url', '2 b invalid-url', '3 c bad-record'],
  });
  expect(counted).toEqual({ ...none, rows: 4, failed: 3, missing: 1 });
});

test('a row that is described is not failed, even if the failures say so', async () => {
  const counted = await recount({ keyed: true, manifest: ['1 a'], output: ['1 a'], failures: ['1 a'] });
  expect(counted).toEqual({ ...none, rows: 1, described: 1 });
});

test('counts what a killed run left as the next one will, and leaves it alone', async () => {
  const counted = await recount({
    manifest: ['1 a', '2 b', '3 c', '4 c'],
    failures: ['1 a', '2 b', '3 c', '4 c'],
    partial: ['1 a', '3 c'],
  });
  expect(counted).toEqual({ ...none, rows: 4, failed: 3, missing: 1 });
});

test('leaves a torn output as it is', async () => {
  const folder = await makeFolder();
  const path = join(folder, 'out.csv');
  const torn = `${csv([...COLUMNS, ...PROMPT_COLUMNS, ...MESSAGE_COLUMNS], [['1', 'https://a', ...described('a')]])}2,https://b,"to`;
  await writeFile(path, torn);
  const rows = inBatches([rowOf('1 a', false), rowOf('2 b', false)]);
  const counted = await recountOutput({ ...outputOptions(path), failuresPath: join(folder, 'f.csv'), rows });
  expect(counted).toEqual({ ...none, rows: 2, described: 1, missing: 1 });
  expect(await readFile(path, 'utf8')).toBe(torn);
});

test('every row of the manifest and of the output is counted once', { timeout: 120_000 }, async () => {
  const row = fc.constantFrom('1 a', '2 a', '3 b', '4 c', '5 c');
  const rows = fc.array(row, { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(rows, rows, rows, fc.boolean(), async (manifest, output, failures, keyed) => {
      const counted = await recount({ manifest, output, failures, keyed });
      expect(counted.rows).toBe(manifest.length);
      expect(counted.described + counted.failed + counted.missing).toBe(manifest.length);
      expect(counted.described + counted.extra + counted.twice).toBe(output.length);
      expect(counted.failed).toBeLessThanOrEqual(failures.length);
    }),
    { numRuns: 60 },
  );
});
