import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CsvDialect, type CsvRecord, CsvSyntaxError, formatCsv, readCsv } from '../../src/shared/csv.js';

interface Read {
  readonly records: CsvRecord[];
  readonly error: CsvSyntaxError | undefined;
}

/** Reads a text in pieces of so many bytes. */
async function read(
  text: string | Buffer,
  dialect: Partial<CsvDialect> = {},
  pieceBytes = 1 << 20,
): Promise<Read> {
  const records: CsvRecord[] = [];
  try {
    const pieces = inPieces(Buffer.from(text), pieceBytes);
    for await (const some of readCsv(pieces, { delimiter: ',', ...dialect })) records.push(...some);
  } catch (error) {
    if (!(error instanceof CsvSyntaxError)) throw error;
    return { records, error };
  }
  return { records, error: undefined };
}

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < bytes.length; at += size) yield await Promise.resolve(bytes.subarray(at, at + size));
}

const cellsOf = ({ records }: Read) => records.map(({ cells }) => cells);

const cell = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: fc.constantFrom('a', '"', ',', ';', '\t', '\n', '\r', ' ', 'é', '😀', '\ufeff') }),
);
const table = fc.array(fc.array(cell, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 8 });

describe('readCsv', () => {
  test('reads what formatCsv writes, wherever its pieces end, and says where each record is', async () => {
    const layout = fc.record({
      delimiter: fc.constantFrom(',', ';', '\t'),
      pieceBytes: fc.integer({ min: 1, max: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(table, layout, async (rows, { delimiter, pieceBytes }) => {
        const bytes = Buffer.from(formatCsv(rows, delimiter));
        const found = await read(bytes, { delimiter }, pieceBytes);
        expect(found.error).toBeUndefined();
        expect(cellsOf(found)).toEqual(rows);
        expect(found.records.every(({ hasLineEnd }) => hasLineEnd)).toBe(true);
        for (const { cells, start, end, line } of found.records) {
          expect(bytes.toString('utf8', start, end)).toBe(formatCsv([cells], delimiter));
          expect(line).toBe(bytes.toString('latin1', 0, start).split('\n').length);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('finds a record again from the end of the one before it, over blank lines', async () => {
    const text = '\ufeffa,b\r\n\r\n\n1,"x\r\ny"\r\n\n2,z\n';
    const { records } = await read(Buffer.from(text).subarray(3), { offset: 3 }, 3);
    expect(records.map(({ line, start, end }) => [line, start, end])).toEqual([
      [1, 3, 8],
      [4, 8, 21],
      [7, 21, 26],
    ]);
    const rest = await read(Buffer.from(text).subarray(21), { offset: 21 });
    expect(rest.records).toEqual([{ ...records[2], line: 2 }]);
  });

  test.each([
    ['a,b\n1,2', [true, false]],
    ['a,b\n1,2\r', [true, false]],
    ['a,b\n1,2\r\n', [true, true]],
    ['a,b\n1,"2\n"', [true, false]],
    ['a,b\n1,2\n\n', [true, true]],
  ])('says of %j which records have line ends', async (text, wanted) => {
    for (const size of [1, 2, 3, 100]) {
      const { records } = await read(text, {}, size);
      expect(records.map(({ hasLineEnd }) => hasLineEnd)).toEqual(wanted);
    }
  });

  test.each([
    ['a,b\n1,2\n\n3,"x\ny', 'quote-not-closed', 4],
    ['a,b\n1,2\n\n3,"x"y\n4,5\n', 'text-behind-quote', 4],
    ['a,b\n1,2\n\n3,x"y\n4,5\n', 'quote-in-cell', 4],
    ['a,b\n1,2\n\n3,"xxxxxxxxxxx\nxxxxxxxxxxx\n', 'record-too-long', 4],
  ])(
    'gives the records before a flaw in %j, and the line of the record with it',
    async (text, flaw, line) => {
      for (const size of [1, 3, 100]) {
        const { records, error } = await read(text, { maxRecordBytes: 20 }, size);
        expect(records.map(({ cells }) => cells)).toEqual([
          ['a', 'b'],
          ['1', '2'],
        ]);
        expect(error).toMatchObject({ flaw, line, start: 8 });
      }
    },
  );

  test('takes other quotes as they are where they are relaxed', async () => {
    const found = await read('a 5" disc,"Sunset" by Monet\n', { relaxQuotes: true });
    expect(cellsOf(found)).toEqual([['a 5" disc', '"Sunset" by Monet']]);
  });

  test('takes no quote for an ordinary one that holds cells or records which come after it', async () => {
    const found = await read('1,"""a,b"""\n2,"Sunset,u\n3,"Dawn,u\n4,x\n', { relaxQuotes: true });
    expect(cellsOf(found)).toEqual([['1', '"a,b"']]);
    expect(found.error).toMatchObject({ flaw: 'quote-not-closed', line: 2 });
  });

  test('names the cell that is not UTF-8, and keeps a U+FFFD that is in the file', async () => {
    const bytes = Buffer.concat([Buffer.from('é,caf'), Buffer.from([0xe9]), Buffer.from('\né,\ufffd\n')]);
    const { records } = await read(bytes, {}, 1);
    expect(records.map(({ cells, invalidCell }) => ({ cells, invalidCell }))).toEqual([
      { cells: ['é', 'caf\ufffd'], invalidCell: 1 },
      { cells: ['é', '\ufffd'], invalidCell: undefined },
    ]);
  });

  test('reads lines that end in CR alone, and counts them', async () => {
    const { records } = await read('a,b\r1,"x\ry"\r2,z', { lineEnd: '\r' }, 2);
    expect(records.map(({ line, cells }) => [line, ...cells])).toEqual([
      [1, 'a', 'b'],
      [2, '1', 'x\ry'],
      [4, '2', 'z'],
    ]);
  });

  test.each(['', '\n', 'a'])('reads a file with hardly anything in it: %j', async (text) => {
    expect(cellsOf(await read(text))).toEqual(text === 'a' ? [['a']] : []);
  });
});

describe('formatCsv', () => {
  test.each([
    [['a', 'b c', "d'e"], `a,b c,d'e\n`],
    [['', '', ''], ',,\n'],
    [['a,b', 'say "x"', 'two\nlines'], '"a,b","say ""x""","two\nlines"\n'],
    [['a\rb', 'c\r\nd', ' e '], '"a\rb","c\r\nd", e \n'],
    [['=1+1', '007', 'a;b'], '=1+1,007,a;b\n'],
  ])('quotes only what has to be quoted: %j', (cells, wanted) => {
    expect(formatCsv([cells], ',')).toBe(wanted);
  });
});
