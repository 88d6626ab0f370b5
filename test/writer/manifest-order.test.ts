import { appendFile, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { OutputFile } from '../../src/writer/output-file.js';
import { inspectOutput } from '../../src/writer/output-table.js';
import { DESCRIBED_AT, imageOf, makeFolder, outputOptions } from './fixtures.js';

type RowCells = readonly [id: string, image: string];

function rowOf([id, image]: RowCells) {
  const url = `https://${image}`;
  return { cells: [id, url], key: id, image: imageOf(url) };
}

async function* batchesOf(rows: readonly RowCells[]) {
  for (const row of rows) yield await Promise.resolve([rowOf(row)]);
}

/** An output with these rows, each with its number in `message_id`. */
async function openOutput(written: readonly RowCells[], { name = 'out.csv', keyed = false } = {}) {
  const path = join(await makeFolder(), name);
  const options = outputOptions(path, keyed);
  const output = await OutputFile.open(options);
  onTestFinished(() => output.close());
  await output.append(
    written.map((row, number) => ({
      row: rowOf(row),
      outcome: {
        status: 'described',
        prompts: [`a, "b"\nof ${row[0]}`, 'two', 'three', 'four'],
        messageId: `message-${number}`,
        describedAt: DESCRIBED_AT,
      },
    })),
  );
  const numbers = async () =>
    Array.from((await readFile(path, 'utf8')).matchAll(/message-(\d+)/g), ([, number]) => Number(number));
  return { path, options, output, numbers };
}

const letters = fc.constantFrom('a', 'b', 'c');
const anyRow: fc.Arbitrary<RowCells> = fc.tuple(fc.oneof(letters, fc.constant('ü,"\n')), letters);

test.each(['out.csv', 'out.jsonl'])('%s gets the order of any manifest, and loses no row', async (name) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(anyRow, fc.boolean(), fc.nat()), { maxLength: 12 }),
      fc.array(fc.tuple(fc.constantFrom('gone', 'left'), fc.constantFrom('x', 'y')), { maxLength: 2 }),
      async (rows, extra: RowCells[]) => {
        const manifest = rows.map(([row]) => row);
        const kept = rows
          .map(([row, isKept, sort]) => ({ row, isKept, sort }))
          .filter(({ isKept }) => isKept);
        const shuffled = [...kept].sort((one, other) => one.sort - other.sort).map(({ row }) => row);
        const written = [...extra, ...shuffled];
        const { path, options, output, numbers } = await openOutput(written, { name });
        const before = await stat(path);
        await output.putInOrder(() => batchesOf(manifest));
        expect((await stat(path)).size).toBe(before.size);
        expect((await inspectOutput(options))?.ending ?? 'whole').toBe('whole');
        // The rows of the manifest that the output has, in order: of equal ones it has as many as there were.
        const left = kept.map(({ row }) => JSON.stringify(row));
        const wanted = manifest.filter((row) => {
          const at = left.indexOf(JSON.stringify(row));
          if (at >= 0) left.splice(at, 1);
          return at >= 0;
        });
        expect((await numbers()).map((number) => written[number])).toEqual([...wanted, ...extra]);
      },
    ),
    { numRuns: 60 },
  );
});

test('rows that share an image keep their own cells; what was changed since is found by its image or key', async () => {
  const written: RowCells[] = [
    ['2', 'a'],
    ['old', 'b'],
    ['1', 'a'],
    ['gone', 'z'],
  ];
  const manifest: RowCells[] = [
    ['1', 'a'],
    ['new', 'b'],
    ['2', 'a'],
    ['3', 'c'],
  ];
  const byImage = await openOutput(written);
  await byImage.output.putInOrder(() => batchesOf(manifest));
  expect(await byImage.numbers()).toEqual([2, 1, 0, 3]);
  const byKey = await openOutput(
    [
      ['2', 'b'],
      ['1', 'moved'],
    ],
    { keyed: true },
  );
  await byKey.output.putInOrder(() => batchesOf(manifest));
  expect(await byKey.numbers()).toEqual([1, 0]);
});

test('an output that is in order is left as it is, and one that somebody has changed is refused', async () => {
  const rows: RowCells[] = [
    ['1', 'a'],
    ['2', 'b'],
  ];
  const { path, output } = await openOutput(rows);
  const before = await stat(path);
  await output.putInOrder(() => batchesOf(rows));
  expect((await stat(path)).ino).toBe(before.ino);
  await output.putInOrder(() => batchesOf([...rows].reverse()));
  expect((await stat(path)).ino).not.toBe(before.ino);
  await expect(
    output.append([
      {
        row: rowOf(['3', 'c']),
        outcome: {
          status: 'described',
          prompts: ['', '', '', ''],
          messageId: 'm',
          describedAt: DESCRIBED_AT,
        },
      },
    ]),
  ).rejects.toThrow('was replaced while the run goes on');
  const other = await openOutput(rows);
  await appendFile(other.path, await readFile(path));
  await expect(other.output.putInOrder(() => batchesOf(rows))).rejects.toThrow(
    'was changed while the run goes on',
  );
});
