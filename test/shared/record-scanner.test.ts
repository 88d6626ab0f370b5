import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CsvRecord, RecordScanner, type ScannerOptions } from '../../src/shared/record-scanner.js';
import { formatCsv } from '../../src/shared/csv.js';

type Told = Pick<CsvRecord, 'start' | 'end' | 'line' | 'flaw'> & {
  readonly cells: readonly string[];
  readonly byteCells: readonly string[];
};

interface Scanned {
  readonly records: Told[];
  readonly tail: (Told & { readonly insideQuotes: boolean }) | undefined;
}

/** Scans a text in chunks of so many bytes. */
function scan(
  text: string | Buffer,
  { delimiter = ',', chunkBytes = 1 << 20, ...rest }: Partial<ScannerOptions> & { chunkBytes?: number } = {},
): Scanned {
  const bytes = Buffer.from(text);
  const scanner = new RecordScanner({ delimiter, ...rest });
  const records: Told[] = [];
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    // A fresh chunk each time, spoilt behind the scanner's back: it must have copied it.
    const chunk = Buffer.from(bytes.subarray(at, at + chunkBytes));
    for (const record of scanner.push(chunk)) records.push(tell(record));
    chunk.fill(0);
  }
  const tail = scanner.tail();
  return { records, tail: tail && { ...tell(tail), insideQuotes: tail.insideQuotes } };
}

/** A record is a view that goes: this stays. */
function tell(record: CsvRecord): Told {
  const { start, end, line, flaw } = record;
  return { start, end, line, flaw, cells: record.cells(), byteCells: record.byteCells() };
}

function cellsOf(text: string | Buffer, options = {}): (readonly string[])[] {
  return scan(text, options).records.map(({ cells }) => cells);
}

const formatLine = (cells: readonly string[], delimiter: string) =>
  cells.length === 1 && cells[0] === '' ? '""\n' : formatCsv([cells], delimiter);

const delimiters = fc.constantFrom(',', ';', '\t');
const cell = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: fc.constantFrom('a', '"', ',', ';', '\t', '\n', '\r', ' ', '\0', 'é') }),
  // Long ones, whose end is searched for.
  fc.string({
    unit: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', '"', '\n', ','),
    minLength: 20,
    maxLength: 120,
  }),
);

describe('RecordScanner', () => {
  test.each([
    [
      'plain cells',
      'a,b\nc,d\n',
      [
        ['a', 'b'],
        ['c', 'd'],
      ],
    ],
    ['empty cells', ',,\n', [['', '', '']]],
    ['quoted cells with delimiters and line ends', '"a,b","c\nd"\n', [['a,b', 'c\nd']]],
    ['escaped quotes', '"say ""hi""",""""\n', [['say "hi"', '"']]],
    [
      'CRLF',
      'a,"b"\r\nc,d\r\n',
      [
        ['a', 'b'],
        ['c', 'd'],
      ],
    ],
    ['CRLF kept within quotes', '"a\r\nb"\r\n', [['a\r\nb']]],
    ['blank lines skipped', '\na\n\r\n\nb\n', [['a'], ['b']]],
    ['a quoted empty cell is no blank line', '""\n', [['']]],
    ['a quote inside a plain cell stands for itself', '5" disk,b\n', [['5" disk', 'b']]],
    ['text behind a closing quote: taken as it stands', '"a"b,c\n', [['"a"b', 'c']]],
    ['non-ASCII', 'grün,日本語\n"🙂 ""x"""\n', [['grün', '日本語'], ['🙂 "x"']]],
    ['spaces are kept', ' a , b \n', [[' a ', ' b ']]],
  ])('reads %s', (_, text, cells) => {
    expect(cellsOf(text)).toEqual(cells);
    expect(cellsOf(text, { chunkBytes: 1 })).toEqual(cells);
  });

  test('skips a byte order mark, also before a quote and in the smallest chunks', () => {
    const text = '\uFEFF"a,b",c\n';
    for (const chunkBytes of [1, 2, 3, 100]) {
      expect(scan(text, { chunkBytes }).records).toMatchObject([
        { start: 3, end: 11, line: 1, cells: ['a,b', 'c'] },
      ]);
    }
  });

  test('reads a file that is shorter than a byte order mark', () => {
    expect(cellsOf('a\n')).toEqual([['a']]);
    expect(scan(Buffer.from([0xef])).tail?.start).toBe(0);
    expect(scan('').tail).toBeUndefined();
  });

  test('tells byte offsets and the line where a record starts', () => {
    const { records } = scan('é,b\n"x\ny",z\n\nlast,one\n');
    expect(records.map(({ start, end, line }) => [start, end, line])).toEqual([
      [0, 5, 1],
      [5, 13, 2],
      [14, 23, 5],
    ]);
  });

  test('hands out what follows the last line end as the tail', () => {
    expect(scan('a,b\nc,d').tail).toMatchObject({ start: 4, cells: ['c', 'd'], insideQuotes: false });
    expect(scan('a,b\nc,"d\n').tail).toMatchObject({ start: 4, cells: ['c', '"d\n'], insideQuotes: true });
    expect(scan('a,b\n').tail).toBeUndefined();
  });

  test('starts in the middle of a file, with offsets of the file', () => {
    const scanner = new RecordScanner({ delimiter: ',', offset: 100 });
    expect([...scanner.push(Buffer.from('a,b\n'))].map(({ start, end }) => [start, end])).toEqual([
      [100, 104],
    ]);
  });

  test('decodes only what there is', () => {
    const scanner = new RecordScanner({ delimiter: ',' });
    for (const record of scanner.push(Buffer.from('a,b\n'))) {
      expect([record.size, record.cell(0), record.cell(1), record.cell(2)]).toEqual([2, 'a', 'b', undefined]);
    }
  });

  test('reads a cell of several megabytes in small chunks without reading it over and over', () => {
    const huge = 'x"y\n'.repeat(1_000_000);
    const [cells] = cellsOf(formatLine([huge, 'b'], ','), { chunkBytes: 4096 });
    expect(cells?.[0] === huge).toBe(true);
    expect(cells?.[1]).toBe('b');
  });

  test.each([
    ['a,b"c\n', 'quote-in-cell', ['a', 'b"c']],
    ['a,"b"c\n', 'text-behind-quote', ['a', '"b"c']],
    ['"a" ,b\n', 'text-behind-quote', ['"a" ', 'b']],
    ['"a"\rb\n', 'text-behind-quote', ['"a"\rb']],
    ['"a"\r,b\n', 'text-behind-quote', ['"a"\r', 'b']],
    ['"a" b "c"\n', 'text-behind-quote', ['"a" b "c"']],
    ['a,"b,c"d,e\n', 'swallowed', ['a', '"b,c"d', 'e']],
    ['"b\nc"d\n', 'swallowed', ['"b\nc"d']],
    ['a"b,"c"d\n', 'text-behind-quote', ['a"b', '"c"d']],
    ['"a"b,"c,"d\n', 'swallowed', ['"a"b', '"c,"d']],
    ['"c,"d,"a"b\n', 'swallowed', ['"c,"d', '"a"b']],
    ['a"b,"c,"d\n', 'swallowed', ['a"b', '"c,"d']],
    ['"a,""b""\n"\r\n', undefined, ['a,"b"\n']],
  ])('tells what is wrong with the quotes of %j, and takes the cell as it stands', (text, flaw, cells) => {
    for (const chunkBytes of [1, 2, 100]) {
      expect(scan(text, { chunkBytes }).records).toMatchObject([{ flaw, cells, byteCells: cells }]);
    }
  });

  test('tells what is wrong with each record by itself', () => {
    expect(scan('a"b\nc\n').records.map(({ flaw }) => flaw)).toEqual(['quote-in-cell', undefined]);
    expect(scan('"a"\r').tail).toMatchObject({ flaw: 'text-behind-quote', cells: ['"a"\r'] });
  });

  test('reads lines that end in CR alone where it is told so', () => {
    const { records, tail } = scan('a,"b\rc"\r\rd,e\nf\rg', { lineEnd: '\r' });
    expect(records.map(({ line, cells }) => [line, cells])).toEqual([
      [1, ['a', 'b\rc']],
      [4, ['d', 'e\nf']],
    ]);
    expect(tail?.cells).toEqual(['g']);
  });

  test('gives cells byte by byte too', () => {
    const [record] = scan('é,"""ü""",\n').records;
    expect(record?.byteCells).toEqual(['é', '"ü"', ''].map((text) => Buffer.from(text).toString('latin1')));
  });

  test('tells how many bytes wait for the end of their record, and in which line that begins', () => {
    const scanner = new RecordScanner({ delimiter: ',' });
    expect([...scanner.push(Buffer.from('a\nb,"\nc'))]).toHaveLength(1);
    expect(scanner.pending).toEqual({ bytes: 5, line: 2 });
  });

  test('refuses a delimiter that is not one ASCII character', () => {
    for (const delimiter of ['', ',,', '"', '\n', 'é']) {
      expect(() => new RecordScanner({ delimiter })).toThrow(RangeError);
    }
  });

  test('reads back what is written and the lines where it begins, whatever the chunks', () => {
    const records = fc.array(fc.array(cell, { minLength: 1, maxLength: 5 }), { maxLength: 6 });
    fc.assert(
      fc.property(records, delimiters, fc.integer({ min: 1, max: 200 }), (written, delimiter, chunkBytes) => {
        const texts = written.map((cells) => formatLine(cells, delimiter));
        const text = texts.join('');
        fc.pre(!text.startsWith('\uFEFF'));
        const told = scan(text, { delimiter, chunkBytes }).records;
        expect(told.map(({ cells }) => cells)).toEqual(written);
        const lines = texts.map((_, index) => texts.slice(0, index).join('').split('\n').length);
        expect(told.map(({ line }) => line)).toEqual(lines);
      }),
    );
  });
});
