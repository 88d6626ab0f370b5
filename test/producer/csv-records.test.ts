import { CsvError } from 'csv-parse';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readCsvRecords } from '../../src/producer/csv-records.js';

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < bytes.length; at += size) yield await Promise.resolve(bytes.subarray(at, at + size));
}

async function read(text: string, size: number, lineEnd: '\n' | '\r') {
  const cells: (readonly string[])[] = [];
  try {
    const pieces = inPieces(Buffer.from(text, 'latin1'), size);
    for await (const records of readCsvRecords(
      pieces,
      { delimiter: ',', lineEnd, relaxQuotes: false },
      'a.csv',
    )) {
      cells.push(...records.map((record) => record.cells));
    }
    return { cells, isRefused: false };
  } catch {
    return { cells, isRefused: true };
  }
}

/** The same by a library that knows nothing of lines, and gives nothing where anything is wrong. */
function parseAll(text: string, lineEnd: '\n' | '\r'): string[][] | undefined {
  try {
    return parse(Buffer.from(text, 'latin1'), {
      encoding: 'latin1',
      record_delimiter: lineEnd === '\r' ? ['\r'] : ['\r\n', '\n'],
      relax_column_count: true,
      skip_empty_lines: true,
    });
  } catch (error) {
    if (error instanceof CsvError) return undefined;
    throw error;
  }
}

test('a csv is read, and refused, as csv-parse does it, wherever its pieces end', async () => {
  const text = fc.string({
    unit: fc.constantFrom('a', 'b', '"', '"', ',', '\n', '\r\n', '\r', ' ', '\xe9'),
    maxLength: 20,
  });
  await fc.assert(
    fc.asyncProperty(
      text,
      fc.integer({ min: 1, max: 7 }),
      fc.constantFrom('\n' as const, '\r' as const),
      async (text, size, lineEnd) => {
        const wanted = parseAll(text, lineEnd);
        const { cells, isRefused } = await read(text, size, lineEnd);
        expect(isRefused).toBe(wanted === undefined);
        if (wanted !== undefined) expect(cells).toEqual(wanted);
      },
    ),
    { numRuns: 2000 },
  );
});
