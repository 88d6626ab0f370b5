import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cellsOf, openText, problemsOf, readText } from './manifest-texts.js';

describe('a JSON Lines manifest', () => {
  const format = 'jsonl';

  test('has the keys of its first 100 records as columns, in order of appearance', async () => {
    const lines = ['{"id":1,"url":"a"}', '{"url":"b","title":"t"}', '', '{"2":"x","id":null}'];
    const { manifest, records } = await readText(lines.join('\r\n'), { format, sizes: [5] });
    expect(manifest.columns).toEqual(['id', 'url', 'title', '2']);
    expect(cellsOf(records)).toEqual([
      ['1', 'a', '', ''],
      ['', 'b', 't', ''],
      ['', '', '', 'x'],
    ]);
    expect(records.map(({ line }) => line)).toEqual([1, 2, 4]);
  });

  test.each([
    ['12345678901234567890', '12345678901234567890'],
    ['1.0', '1.0'],
    ['-1E+400', '-1E+400'],
    ['true', 'true'],
    ['null', ''],
    ['"a\\"b\\\\\\u00e9\\n"', 'a"b\\é\n'],
    ['{"a": [1.50, "}"]}', '{"a": [1.50, "}"]}'],
    ['[]', '[]'],
    ['"null"', 'null'],
  ])('makes of the value %s the cell %j', async (value, cell) => {
    const { records } = await readText(`{ "v" : ${value} , "w":1}`, { format });
    expect(cellsOf(records)).toEqual([[cell, '1']]);
  });

  test('reads back any strings and keeps the JSON text of everything else', async () => {
    const object = fc.dictionary(
      fc.string({ unit: 'binary' }).map((text) => `k${text}`),
      fc.oneof(fc.string({ unit: 'binary' }), fc.jsonValue()),
      { minKeys: 1, noNullPrototype: true },
    );
    await fc.assert(
      fc.asyncProperty(object, fc.integer({ min: 0, max: 2 }), async (record, indent) => {
        const text = JSON.stringify(record, null, indent).replaceAll('\n', ' ');
        const { manifest, records } = await readText(text, { format, sizes: [3, 11] });
        const cells = manifest.columns.map((column) => {
          const value = record[column];
          if (value === null) return '';
          return typeof value === 'string'
            ? value
            : JSON.stringify(value, null, indent).replaceAll('\n', ' ');
        });
        expect(manifest.columns).toEqual(Object.keys(record).filter((key) => manifest.columns.includes(key)));
        expect(manifest.columns).toHaveLength(Object.keys(record).length);
        expect(records[0]?.cells.map(squeeze)).toEqual(cells.map(squeeze));
      }),
    );
  });

  test('gives what is no JSON, no object or no UTF-8 as a bad record and goes on', async () => {
    const bytes = Buffer.concat([
      Buffer.from('{"id":1}\nnope\n[1]\n"x"\n{"id":"'),
      Buffer.from([0xff]),
      Buffer.from('"}\n{"id":2}\n'),
    ]);
    const { records, error } = await readText(bytes, { format });
    expect(error).toBeUndefined();
    expect(cellsOf(records)).toEqual([['1'], [''], [''], [''], [''], ['2']]);
    expect(problemsOf(records)).toEqual([
      undefined,
      expect.stringMatching(/^no JSON \(/),
      'JSON, but no object',
      'JSON, but no object',
      'not valid UTF-8: say --encoding, such as windows-1252',
      undefined,
    ]);
  });

  test('leaves out the keys of a later record that the first ones do not have, and names them', async () => {
    const lines = [
      ...Array.from({ length: 100 }, (_, id) => `{"id":${id}}`),
      '{"id":100,"extra":1,"more":2}',
    ];
    const { records } = await readText(lines.join('\n'), { format });
    expect(records.at(-1)).toEqual({
      line: 101,
      number: 101,
      cells: ['100'],
      isJson: [true],
      unknownKeys: ['extra', 'more'],
    });
  });

  test.each([
    ['is no JSON', 'id,url\n1,http://a/b\n'],
    ['is an array', '[{"id":1}]'],
    ['is an array over several lines', '[\n{"id":1},\n{"id":2}\n]'],
    ['is not UTF-8', Buffer.from([0xe9, 0x0a, 0xe9, 0x0a])],
    ['has only empty objects', '{}\n{}'],
    ['has a key that is empty', '{"":1}'],
  ])('is refused when it %s', async (_, text) => {
    await expect(openText(text, { format })).rejects.toThrow(/^stdin[: ].*/);
    await expect(openText(text, { format })).rejects.toMatchObject({ name: 'UsageError', exitCode: 1 });
  });
});

describe('a list manifest', () => {
  const format = 'list';

  test('has one column and a record for each line that is not blank, unchanged', async () => {
    const { manifest, records } = await readText('\ufeffhttp://a/1\r\n\n  http://a/2 \n\t\nhttp://a/3', {
      format,
      sizes: [1],
    });
    expect(manifest.columns).toEqual(['url']);
    expect(cellsOf(records)).toEqual([['http://a/1'], ['  http://a/2 '], ['http://a/3']]);
    expect(records.map(({ line }) => line)).toEqual([1, 3, 5]);
  });

  test('gives a line that is not UTF-8 as a bad record', async () => {
    const { records } = await readText(Buffer.from([0x61, 0x0a, 0xe9, 0x0a, 0x62]), { format });
    expect(problemsOf(records)).toEqual([
      undefined,
      'not valid UTF-8: say --encoding, such as windows-1252',
      undefined,
    ]);
  });
});

/** The layout within nested values depends on how deep they are when they are written. */
function squeeze(text: string): string {
  return text.replaceAll(' ', '');
}
