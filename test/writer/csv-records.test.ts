import fc from 'fast-check';
import { stringify } from 'csv-stringify/sync';
import { describe, expect, test } from 'vitest';
import { formatRecord } from '../../src/writer/csv-format.js';
import { RecordScanner } from '../../src/writer/csv-records.js';

interface Scanned {
  readonly records: { start: number; end: number; line: number; cells: string[] }[];
  readonly tail: { start: number; cells: string[]; insideQuotes: boolean } | undefined;
}

/** Scans a text in chunks of so many bytes. */
function scan(text: string | Buffer, { delimiter = ',', chunkBytes = 1 << 20 } = {}): Scanned {
  const bytes = Buffer.from(text);
  const scanner = new RecordScanner(delimiter);
  const records: Scanned['records'] = [];
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    // A fresh chunk each time, spoilt behind the scanner's back: it must have copied it.
    const chunk = Buffer.from(bytes.subarray(at, at + chunkBytes));
    for (const record of scanner.push(chunk)) {
      records.push({ start: record.start, end: record.end, line: record.line, cells: record.cells() });
    }
    chunk.fill(0);
  }
  const tail = scanner.tail();
  return {
    records,
    tail: tail && { start: tail.start, cells: tail.cells(), insideQuotes: tail.insideQuotes },
  };
}

function cellsOf(text: string | Buffer, options = {}): string[][] {
  return scan(text, options).records.map(({ cells }) => cells);
}

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
      expect(scan(text, { chunkBytes }).records).toEqual([
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
    expect(scan('a,b\nc,d').tail).toEqual({ start: 4, cells: ['c', 'd'], insideQuotes: false });
    expect(scan('a,b\nc,"d\n').tail).toEqual({ start: 4, cells: ['c', '"d\n'], insideQuotes: true });
    expect(scan('a,b\n').tail).toBeUndefined();
  });

  test('starts in the middle of a file, with offsets of the file', () => {
    const scanner = new RecordScanner(',', 100);
    expect([...scanner.push(Buffer.from('a,b\n'))].map(({ start, end }) => [start, end])).toEqual([
      [100, 104],
    ]);
  });

  test('decodes only what there is', () => {
    const scanner = new RecordScanner(',');
    for (const record of scanner.push(Buffer.from('a,b\n'))) {
      expect([record.size, record.cell(0), record.cell(1), record.cell(2)]).toEqual([2, 'a', 'b', undefined]);
    }
  });

  test('reads a cell of several megabytes in small chunks without reading it over and over', () => {
    const huge = 'x"y\n'.repeat(1_000_000);
    const [cells] = cellsOf(formatRecord([huge, 'b'], ','), { chunkBytes: 4096 });
    expect(cells?.[0] === huge).toBe(true);
    expect(cells?.[1]).toBe('b');
  });

  test('refuses a delimiter that is not one ASCII character', () => {
    for (const delimiter of ['', ',,', '"', '\n', 'é']) {
      expect(() => new RecordScanner(delimiter)).toThrow(RangeError);
    }
  });
});

const delimiters = fc.constantFrom(',', ';', '\t');
const cell = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: fc.constantFrom('a', '"', ',', ';', '\t', '\n', '\r', ' ', '\0', 'é') }),
);

describe('formatRecord', () => {
  test.each([
    [['a', 'b c', ' d '], 'a,b c, d \n'],
    [['a,b', 'c"d', 'e\nf', 'g\rh'], '"a,b","c""d","e\nf","g\rh"\n'],
    [['a;b'], 'a;b\n'],
    [[''], '""\n'],
    [['', ''], ',\n'],
  ])('writes %j', (cells, text) => {
    expect(formatRecord(cells, ',')).toBe(text);
  });

  test('writes what csv-stringify writes', () => {
    fc.assert(
      fc.property(fc.array(cell, { minLength: 2 }), delimiters, (cells, delimiter) => {
        const quoted = stringify([cells], { delimiter, quoted_match: /\r/ });
        expect(formatRecord(cells, delimiter)).toBe(quoted);
      }),
    );
  });

  test('is read back by the scanner, whatever the chunks', () => {
    const records = fc.array(fc.array(cell, { minLength: 1, maxLength: 5 }), { maxLength: 6 });
    fc.assert(
      fc.property(records, delimiters, fc.integer({ min: 1, max: 40 }), (written, delimiter, chunkBytes) => {
        const text = written.map((cells) => formatRecord(cells, delimiter)).join('');
        fc.pre(!text.startsWith('\uFEFF'));
        expect(cellsOf(text, { delimiter, chunkBytes })).toEqual(written);
      }),
    );
  });
});
