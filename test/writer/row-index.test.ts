import { appendFile, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { newOutputTable } from '../../src/writer/output-table.js';
import { packOutput } from '../../src/writer/parquet-output.js';
import { RowIndex } from '../../src/writer/row-index.js';
import type { Table, TableRow } from '../../src/writer/table.js';
import { makeFolder } from './fixtures.js';

const PROMPTS = ['prompt_1', 'prompt_2'];
const NEVER = new AbortController().signal;
const cell = fc.string({
  unit: fc.constantFrom(
    'a',
    'B',
    'é',
    'Ж',
    'Σ',
    '🦊',
    ' ',
    ',',
    '"',
    '\n',
    '\r',
    '\\',
    '\t',
    "'",
    '.',
    '*',
    'n',
    '1',
    '{',
    ':',
  ),
  maxLength: 6,
});
const rowsOf = fc.array(fc.array(cell, { minLength: 4, maxLength: 4 }), { minLength: 1, maxLength: 30 });

async function readAll(path: string, table: Table) {
  const handle = await open(path, 'r');
  const [offsets, rows]: [number[], string[][]] = [[], []];
  const visit = (found: readonly TableRow[]) => {
    for (const { offset, cells } of found) {
      offsets.push(offset);
      rows.push([...cells]);
    }
  };
  await table.forEach(handle, { columns: table.columns, what: path, visit });
  return { handle, offsets, rows };
}

test('finds where rows begin and which have a text, as reading all of them does, also of what has come since', async () => {
  const folder = await makeFolder();
  let file = 0;
  const formats = [
    { ending: 'csv' },
    { ending: 'tsv', delimiter: '\t' },
    { ending: 'jsonl' },
    { ending: 'csv', promptsAs: 'rows' },
    { ending: 'jsonl', promptsAs: 'rows' },
    { ending: 'parquet' },
    { ending: 'parquet', promptsAs: 'rows' },
  ] as const;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...formats),
      rowsOf,
      rowsOf,
      fc.oneof(cell, fc.constantFrom('prompt', 'id', ',"', '":"', 'A', 'É1', 'ж')),
      async ({ ending, ...format }, before, after, text) => {
        fc.pre(text !== '');
        const output = join(folder, `${file++}.${ending}`);
        const about = { columns: ['id', 'n'], answerColumns: PROMPTS, delimiter: ',', ...format };
        const isPacked = ending === 'parquet';
        const path = isPacked ? `${output}.jsonl` : output;
        let table = newOutputTable({ ...about, path });
        const format1 = (rows: readonly string[][]) =>
          table.format(
            rows.map(([id = '', n = '', ...rest]) => ({ cells: [id, n, ...rest, 'm-1', '2026'] })),
          );
        await writeFile(path, table.header() + format1(isPacked ? [...before, ...after] : before));
        if (isPacked) {
          await packOutput({ ...about, path, urlColumn: { index: 0, path: [] } }, output);
          table = newOutputTable({ ...about, path: output });
        }
        const handle = await open(output, 'r');
        try {
          table = (await table.open(handle, () => true)) ?? table;
          const index = new RowIndex(table);
          const check = async () => {
            await index.refresh(handle, NEVER);
            const all = await readAll(output, table);
            await all.handle.close();
            const offsets = Array.from({ length: index.rows }, (_, row) => index.offsetOf(row));
            expect(offsets).toEqual(all.offsets);
            const found = await index.search(handle, text, NEVER);
            // In lower case a sigma depends on what stands beside it.
            const lower = (one: string) => one.toLowerCase().replaceAll('ς', 'σ');
            const isIn = (cells: string[]) => cells.some((one) => lower(one).includes(lower(text)));
            expect(found).toEqual([...all.rows.keys()].filter((row) => isIn(all.rows[row] ?? [])));
          };
          await check();
          if (isPacked) return;
          const more = format1(after);
          // A row that is being written is not there yet.
          await appendFile(output, more.slice(0, more.length / 2));
          await index.refresh(handle, NEVER);
          await index.search(handle, text, NEVER);
          await appendFile(output, more.slice(more.length / 2));
          await check();
        } finally {
          await handle.close();
        }
      },
    ),
    { numRuns: 150 },
  );
});

test('several searches of one file each go on where they ended', async () => {
  const path = join(await makeFolder(), 'out.csv');
  const table = newOutputTable({ columns: ['id'], answerColumns: PROMPTS, delimiter: ',', path });
  const rows = Array.from({ length: 100 }, (_, n) => ({ cells: [`row ${n}`, 'a', 'b', 'm-1', '2026'] }));
  await writeFile(path, table.header() + table.format(rows));
  const handle = await open(path, 'r');
  try {
    const index = new RowIndex((await table.open(handle, () => true)) ?? table);
    await index.refresh(handle, NEVER);
    const read = vi.spyOn(handle, 'read');
    const find = (text: string) => index.search(handle, text, NEVER);
    expect([await find('row 7'), await find('row 99')]).toEqual([[7, ...range(70, 80)], [99]]);
    const { length } = read.mock.calls;
    expect([(await find('row 7')).length, await find('row 99')]).toEqual([11, [99]]);
    expect(read.mock.calls).toHaveLength(length);
    expect([index.searched('row 7'), index.searched('row 8')]).toEqual([1, 0]);
    // The last few are kept.
    for (const n of range(0, 30)) await find(`row ${n}`);
    expect([index.searched('row 7'), index.searched('row 29')]).toEqual([0, 1]);
  } finally {
    await handle.close();
  }
});

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}
