import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MESSAGE_COLUMNS, PROMPT_COLUMNS } from '../../src/shared/jobs.js';
import { OutputIndex } from '../../src/writer/output-index.js';
import { EarlierOutputs } from '../../src/writer/earlier-outputs.js';
import { readFailures } from '../../src/writer/failures.js';
import { writeRunFile } from '../../src/writer/run-file.js';
import {
  COLUMNS,
  described,
  DESCRIBED_AT,
  formatRecord,
  imageOf,
  makeFolder,
  outputOptions,
} from './fixtures.js';

const A = imageOf('https://a');
const B = imageOf('https://b');

function csv(columns: readonly string[], rows: readonly (readonly string[])[], delimiter = ','): string {
  return [[...columns, ...PROMPT_COLUMNS, ...MESSAGE_COLUMNS], ...rows]
    .map((cells) => formatRecord(cells, delimiter))
    .join('');
}

function readDescribed(earlier: EarlierOutputs, index: OutputIndex, image: string) {
  return earlier.readDescribed(index.placeOf(image) ?? { file: -1, offset: -1 });
}

/** Writes the files of a folder and reads them as earlier outputs. */
async function readEarlier(
  files: Readonly<Record<string, string>>,
  options: { keyed?: boolean; own?: string } = {},
) {
  const folder = await makeFolder();
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  const paths = Object.keys(files).map((name) => join(folder, name));
  const opened = outputOptions(join(folder, options.own ?? 'own.csv'), options.keyed);
  const earlier = await EarlierOutputs.read(paths, opened);
  return {
    index: opened.index,
    readDescribed: (image: string) => readDescribed(earlier, opened.index, image),
  };
}

describe('earlier outputs', () => {
  test('are in one index, and their prompts are read from where they are', async () => {
    const earlier = await readEarlier({
      'one.csv': csv(COLUMNS, [['1', 'https://a', ...described('a')]]),
      'empty.csv': '',
      'two.csv': csv(COLUMNS, [
        ['2', 'https://b', ...described('b')],
        ['3', 'https://a', ...described('other')],
      ]),
    });
    expect(earlier.index.earlierRows).toBe(3);
    for (const [image, name] of [
      [A, 'a'],
      [B, 'b'],
    ] as const) {
      expect(await earlier.readDescribed(image)).toEqual({
        status: 'described',
        prompts: [`${name} 1`, `${name} 2`, `${name} 3`, `${name} 4`],
        messageId: `message-${name}`,
        describedAt: DESCRIBED_AT,
      });
    }
  });

  test('may have other columns, another delimiter, and a last row without its line end', async () => {
    const rows = [
      ['https://a', 'old', ...described('a')],
      ['https://b', 'old', ...described('b')],
    ];
    const earlier = await readEarlier({ 'old.csv': csv(['url', 'gone'], rows, ';').trimEnd() });
    expect(earlier.index.earlierRows).toBe(2);
    const { messageId } = await earlier.readDescribed(B);
    expect(messageId).toBe('message-b');
  });

  test('need no URLs where rows have keys, but the keys', async () => {
    const byKey = csv(['id'], [['7', ...described('a')]]);
    expect((await readEarlier({ 'old.csv': byKey }, { keyed: true })).index.has({ key: '7' })).toBe(true);
    await expect(readEarlier({ 'old.csv': byKey })).rejects.toThrow(
      /earlier output .*old\.csv .*no column "url"/,
    );
    const byUrl = csv(['url'], [['https://a', ...described('a')]]);
    await expect(readEarlier({ 'old.csv': byUrl }, { keyed: true })).rejects.toThrow(/no column "id"/);
  });

  test.each([true, false])('are read with --escape-formulas where their own run had it: %s', async (had) => {
    const folder = await makeFolder();
    const path = join(folder, 'one.csv');
    await writeFile(path, csv(COLUMNS, [["'-3", 'https://a', ...described('a')]]));
    await writeFile(
      join(folder, 'one.failed.csv'),
      "id,url,error_code,error,attempts,message_id\n'-4,https://b,network,x,5,m\n",
    );
    await writeRunFile(`${path}.run`, {
      ...{ version: 1, run: 'a23456789012', queue: 'embedded:', account: 'any', simulator: true },
      ...{ open: false, urlColumn: 'url', createdAt: DESCRIBED_AT, escapeFormulas: had || undefined },
    });
    const options = { ...outputOptions(join(folder, 'own.csv'), true), escapeFormulas: !had };
    const earlier = await EarlierOutputs.read([path], options);
    const [done, failed] = had ? ['-3', '-4'] : ["'-3", "'-4"];
    expect(options.index.has({ key: done })).toBe(true);
    expect([...(await readFailures(earlier.files, options)).keys()]).toEqual([failed]);
  });

  test('leave a torn row of a night that was killed out', async () => {
    const whole = csv(COLUMNS, [
      ['1', 'https://a', ...described('a')],
      ['2', 'https://b', ...described('b')],
    ]);
    const earlier = await readEarlier({ 'torn.csv': whole.slice(0, -10) });
    expect([earlier.index.earlierRows, earlier.index.placeOf(B)]).toEqual([1, undefined]);
  });

  test.each([
    ['is not there', 'nowhere.csv', undefined, /nowhere\.csv is not there: put it back/],
    [
      'is no output',
      'other.csv',
      'id,url\n1,https://a\n',
      /other\.csv is none of this manifest: it has no column "prompt_1"/,
    ],
    ['is a folder', 'folder', null, /folder is not a plain file/],
    ['is the output itself', 'own.csv', csv(COLUMNS, []), /both the output and an earlier output/],
  ])('are refused where one %s', async (_, name, content, message) => {
    const folder = await makeFolder();
    const own = join(folder, 'own.csv');
    if (content === null) await mkdir(join(folder, name));
    else if (content !== undefined) await writeFile(join(folder, name), content);
    await expect(EarlierOutputs.read([join(folder, name)], outputOptions(own))).rejects.toThrow(message);
  });

  test('that were changed since end the reading, not with the prompts of another row', async () => {
    const folder = await makeFolder();
    const path = join(folder, 'one.csv');
    await writeFile(path, csv(COLUMNS, [['1', 'https://a', ...described('a')]]));
    const options = outputOptions(join(folder, 'own.csv'));
    const earlier = await EarlierOutputs.read([path], options);
    await writeFile(path, 'short\n');
    await expect(readDescribed(earlier, options.index, A)).rejects.toThrow(/was changed/);
  });
});

describe('rows on file', () => {
  /** An index of these rows, `key image`. */
  function onFile(own: readonly string[], earlier: readonly string[], keyed: boolean): OutputIndex {
    const index = new OutputIndex({ keyed });
    for (const row of earlier) index.addFound({ ...named(row, keyed), file: 1, offset: 0 });
    for (const row of own) index.addFound({ ...named(row, keyed), file: 0, offset: 0 });
    return index;
  }
  function named(row: string, keyed: boolean) {
    const [key = '', image = ''] = row.split(' ');
    return { key: keyed ? key : undefined, image: imageOf(`https://${image}`) };
  }

  test.each([
    // keyed, own, earlier, manifest: taken, of which from earlier files; extra and twice in the output
    [false, ['1 a'], ['1 a'], ['1 a', '2 a', '3 a'], [true, true, false], 1, 0, 0],
    [false, ['1 a'], ['1 a'], ['1 a'], [true], 1, 0, 1],
    [false, ['1 b'], ['1 a'], ['1 a'], [true], 1, 1, 0],
    [false, ['1 a', '2 a', '3 a'], ['1 a'], ['1 a', '2 a'], [true, true], 1, 0, 2],
    [false, ['1 a'], ['1 a', '2 a'], ['1 b'], [false], 0, 1, 0],
    [true, ['2 a'], ['1 a'], ['1 a', '2 a', '3 a'], [true, true, false], 1, 0, 0],
    [true, ['1 a'], ['1 a'], ['1 a'], [true], 1, 0, 1],
    [true, ['1 a', '2 a'], ['3 a'], ['3 a'], [true], 1, 2, 0],
    [true, ['1 a', '1 a'], [], ['1 a'], [true], 0, 0, 1],
  ])(
    '(keyed: %s) own %j, earlier %j, manifest %j',
    (keyed, own, earlier, manifest, taken, fromEarlier, extra, twice) => {
      const rows = onFile(own, earlier, keyed);
      for (let pass = 0; pass < 2; pass++) {
        rows.startPass();
        const met = manifest.map((row) => rows.markSeen(named(row, keyed)) && rows.take(named(row, keyed)));
        expect(met).toEqual(taken);
        expect(rows.fromEarlier).toBe(fromEarlier);
        expect(rows.surplus()).toEqual({ extra, twice });
      }
    },
  );
});
