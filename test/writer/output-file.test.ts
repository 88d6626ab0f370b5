import fc from 'fast-check';
import { parse } from 'csv-parse/sync';
import {
  mkdir,
  readFile,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FatalError, UsageError } from '../../src/shared/errors.js';
import { OutputFile } from '../../src/writer/output-file.js';
import { type OutputOptions, type ScannedOutput, inspectOutput } from '../../src/writer/output-table.js';
import {
  described,
  DESCRIBED_AT,
  formatRecord,
  imageOf,
  makeFolder,
  outputOptions,
  resolveUrl,
} from './fixtures.js';

const HEADER = 'id,url,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at\n';

function rowOf(id: string, image = id, messageId?: string): string[] {
  return [id, `https://${image}`, ...described(image, messageId)];
}

function textOf(...rows: string[][]): string {
  return HEADER + rows.map((row) => formatRecord(row, ',')).join('');
}

async function openOutput(path: string, options: Partial<OutputOptions> = {}, inspected?: ScannedOutput) {
  const all = { ...outputOptions(path, options.keyColumn !== undefined), ...options };
  const output = await OutputFile.open(all, inspected);
  onTestFinished(() => output.close());
  const { index } = all;
  const placeOf = (image: string) => index.placeOf(imageOf(`https://${image}`))?.offset;
  return {
    index,
    rows: () => index.rows,
    placeOf,
    /** Appends rows, given as all cells of each. */
    append: (rows: string[][]) => output.append(rows.map((cells) => toDescribed(cells, all))),
    readDescribed: (image: string) => output.readDescribed(placeOf(image) ?? -1),
    close: () => output.close(),
    path: output.path,
  };
}

function toDescribed(all: readonly string[], options: Pick<OutputOptions, 'urlColumn' | 'keyColumn'>) {
  const cells = all.slice(0, -6);
  const [one = '', two = '', three = '', four = '', messageId = '', describedAt = ''] = all.slice(-6);
  return {
    row: {
      cells,
      image: resolveUrl(cells[options.urlColumn.index] ?? ''),
      key: options.keyColumn === undefined ? undefined : cells[options.keyColumn.index],
    },
    outcome: { status: 'described', prompts: [one, two, three, four], messageId, describedAt },
  } as const;
}

async function makeOutput(content?: string | Buffer) {
  const path = join(await makeFolder(), 'out.csv');
  if (content !== undefined) await writeFile(path, content);
  return { path, read: () => readFile(path, 'utf8') };
}

describe('opening', () => {
  test('creates an output with its header and nothing else', async () => {
    const { path, read } = await makeOutput();
    const output = await openOutput(path);
    expect(await read()).toBe(HEADER);
    expect(await readdir(dirname(path))).toEqual(['out.csv']);
    expect(output.rows()).toBe(0);
  });

  test('indexes what is there', async () => {
    const { path } = await makeOutput(textOf(rowOf('1', 'a'), rowOf('2', 'b', 'sim-7'), rowOf('3', 'a')));
    const output = await openOutput(path);
    expect(output.rows()).toBe(3);
    expect(output.placeOf('a')).toBe(HEADER.length);
    expect([1, 2, 3].map(() => output.index.take({ image: imageOf('https://a') }))).toEqual([
      true,
      true,
      false,
    ]);
  });

  test('takes over what was inspected before, and does not read the output again', async () => {
    const { path, read } = await makeOutput(textOf(rowOf('1', 'a')) + 'torn');
    const options = outputOptions(path);
    const inspected = await inspectOutput(options);
    const output = await openOutput(path, { index: options.index }, inspected);
    expect([output.rows(), await read()]).toEqual([1, textOf(rowOf('1', 'a'))]);
    expect(output.placeOf('a')).toBe(HEADER.length);
  });

  test('reads an output anew that has changed since it was inspected', async () => {
    const { path } = await makeOutput(textOf(rowOf('1', 'a')));
    const options = outputOptions(path);
    const inspected = await inspectOutput(options);
    await writeFile(path, textOf(rowOf('1', 'b')));
    const output = await openOutput(path, { index: options.index }, inspected);
    expect([output.placeOf('a'), output.placeOf('b')]).toEqual([undefined, HEADER.length]);
  });

  test('indexes keys', async () => {
    const { path } = await makeOutput(textOf(rowOf('1', 'a'), rowOf('1', 'b'), rowOf('2', 'b')));
    const output = await openOutput(path, { keyColumn: { index: 0, path: [] } });
    expect(['1', '2', '3'].map((key) => output.index.has({ key }))).toEqual([true, true, false]);
  });

  test.each([';', '\t', ','])('goes on with the delimiter %j that the file has', async (delimiter) => {
    const columns = parse(HEADER)[0] ?? [];
    const { path, read } = await makeOutput(formatRecord(columns, delimiter));
    const output = await openOutput(path);
    await output.append([rowOf('1;,', 'a')]);
    expect(parse(await read(), { delimiter })[1]).toEqual(rowOf('1;,', 'a'));
  });

  test('reads what a spreadsheet saved: byte order mark, CRLF, quotes everywhere', async () => {
    const quoted = [parse(HEADER)[0] ?? [], rowOf('1', 'a')].map((cells) =>
      cells.map((cell) => `"${cell}"`).join(','),
    );
    const { path, read } = await makeOutput(`\uFEFF${quoted.join('\r\n')}\r\n\r\n`);
    const output = await openOutput(path);
    expect(output.rows()).toBe(1);
    await output.append([rowOf('2', 'b')]);
    expect((await output.readDescribed('a')).messageId).toBe('message-a');
    expect(parse(await read(), { bom: true, skip_empty_lines: true })).toHaveLength(3);
    expect((await readFile(path)).subarray(output.placeOf('b')).toString()).toBe(
      formatRecord(rowOf('2', 'b'), ','),
    );
  });

  test('goes on with one whose first column begins with a byte order mark', async () => {
    const { path, read } = await makeOutput();
    const columns = ['\ufeffid', 'url'];
    const output = await openOutput(path, { columns });
    await output.append([rowOf('\ufeff1', 'a')]);
    await output.close();
    expect((await openOutput(path, { columns })).rows()).toBe(1);
    expect(parse(await read()).map((cells) => cells[0])).toEqual(['\ufeffid', '\ufeff1']);
  });

  test('follows a symbolic link and keeps it', async () => {
    const { path } = await makeOutput(textOf(rowOf('1')));
    const name = join(dirname(path), 'link.csv');
    await symlink(path, name);
    const output = await openOutput(name, { columns: ['id', 'url', 'new'], newColumns: true });
    expect(output.path).toBe(path);
    expect(await readdir(dirname(path))).toEqual(['link.csv', 'out.csv']);
  });

  test('is created where a symbolic link to it leads', async () => {
    const { path } = await makeOutput();
    const name = join(dirname(path), 'link.csv');
    await symlink('out.csv', name);
    const output = await openOutput(name);
    expect(output.path).toBe(path);
    expect([await realpath(name), await readFile(path, 'utf8')]).toEqual([path, HEADER]);
  });

  test('says what is wrong with the place', async () => {
    const { path } = await makeOutput('');
    const folder = dirname(path);
    await mkdir(join(folder, 'sub'));
    await expect(openOutput(join(folder, 'sub'))).rejects.toThrow(UsageError);
    await expect(openOutput(join(folder, 'none', 'x.csv'))).rejects.toThrow('the folder does not exist');
    await expect(openOutput(join(path, 'x.csv'))).rejects.toThrow('the folder is a file');
    await expect(openOutput('/dev/null')).rejects.toThrow('is not a plain file');
    await expect(openOutput(join(folder, 'sub'))).rejects.toThrow('is not a plain file');
  });
});

test('an output with a delimiter of its own is gone on with, a torn header too', async () => {
  const { path, read } = await makeOutput('id|ur');
  const output = await openOutput(path, { delimiter: '|' });
  await output.append([rowOf('1|', 'a')]);
  await output.close();
  expect(parse(await read(), { delimiter: '|' })[1]).toEqual(rowOf('1|', 'a'));
  expect((await openOutput(path, { delimiter: '|' })).rows()).toBe(1);
});

describe('the columns', () => {
  test.each([
    [['id', 'url', 'tags'], 'lacks columns that the manifest has: "tags"; --new-columns rewrites it once'],
    [['url'], 'has columns that the manifest does not have: "id"; name another output with -o'],
    [['key', 'url'], 'does not have: "id" and lacks "key"'],
    [['url', 'id'], 'has its columns in another order than the manifest: "id", "url", "prompt_1"'],
  ])('refuses a manifest with %j and says what differs', async (columns, message) => {
    const { path, read } = await makeOutput(textOf(rowOf('1')));
    const refused = openOutput(path, { columns });
    await expect(refused).rejects.toThrow(UsageError);
    await expect(refused).rejects.toThrow(`the output ${path} `);
    await expect(refused).rejects.toThrow(message);
    await expect(inspectOutput({ ...outputOptions(path), columns })).rejects.toThrow(message);
    expect(await read()).toBe(textOf(rowOf('1')));
  });

  test.each([
    ['id,url\n1,https://a\n', 'is no output of bulk-describe: it has no column "prompt_1"'],
    ['no line end at all', 'is no output of bulk-describe: it has no column'],
    [HEADER.replace('id', 'url'), 'has two columns named "url"'],
  ])('refuses %j', async (content, message) => {
    const { path, read } = await makeOutput(content);
    await expect(openOutput(path)).rejects.toThrow(message);
    expect(await read()).toBe(content);
  });

  test('are added once with newColumns: rows keep their cells by name, new cells are empty', async () => {
    const torn = '3,https://c,"to';
    const { path, read } = await makeOutput(textOf(rowOf('1,"x"', 'a'), rowOf('2', 'b')) + torn);
    const columns = ['url', 'tags', 'id'];
    const options = {
      columns,
      urlColumn: { index: 0, path: [] },
      keyColumn: { index: 2, path: [] },
      newColumns: true,
    };
    const output = await openOutput(path, options);
    await output.append([['https://c', 'tag', '3', ...described('c')]]);
    expect(parse(await read(), { columns: true })).toMatchObject([
      { id: '1,"x"', url: 'https://a', tags: '', prompt_4: 'a 4', described_at: DESCRIBED_AT },
      { id: '2', url: 'https://b', tags: '', message_id: 'message-b' },
      { id: '3', url: 'https://c', tags: 'tag', message_id: 'message-c' },
    ]);
    expect(output.index.has({ key: '1,"x"' })).toBe(true);
    expect((await openOutput(path, { ...options, newColumns: false })).rows()).toBe(3);
    expect(await readdir(dirname(path))).toEqual(['out.csv']);
  });

  test('are never removed, not with newColumns either', async () => {
    const { path } = await makeOutput(textOf(rowOf('1')));
    await expect(
      openOutput(path, { columns: ['url', 'new'], urlColumn: { index: 0, path: [] }, newColumns: true }),
    ).rejects.toThrow('has columns that the manifest does not have: "id"');
  });
});

describe('a torn end', () => {
  test('is cut', async () => {
    const { path, read } = await makeOutput(`${textOf(rowOf('1'))}2,https://b,"a prompt, in`);
    const output = await openOutput(path);
    expect(output.rows()).toBe(1);
    expect(await read()).toBe(textOf(rowOf('1')));
  });

  test('that lacks only its line end is a whole row', async () => {
    const { path, read } = await makeOutput(textOf(rowOf('1'), rowOf('2')).slice(0, -1));
    const output = await openOutput(path);
    expect(output.rows()).toBe(2);
    await output.append([rowOf('3')]);
    expect(await read()).toBe(textOf(rowOf('1'), rowOf('2'), rowOf('3')));
  });

  test('is not cut when it hides rows behind a quote too many', async () => {
    const content =
      HEADER +
      formatRecord(rowOf('1'), ',').replace(',1 2,', ',"1 2,') +
      textOf(rowOf('2')).slice(HEADER.length);
    const { path, read } = await makeOutput(content);
    await expect(openOutput(path)).rejects.toThrow('a quote too many or too few in the record at line 2');
    expect(await read()).toBe(content);
  });

  test('is cut though a quoted cell of it holds a timestamp at a line end', async () => {
    const torn = `2,"https://b\nseen, ${DESCRIBED_AT}\r\n""${DESCRIBED_AT}""\nand`;
    const { path, read } = await makeOutput(textOf(rowOf('1')) + torn);
    const output = await openOutput(path);
    expect(output.rows()).toBe(1);
    expect(await read()).toBe(textOf(rowOf('1')));
  });

  test('is not cut when it is longer than any row, nor read any further', async () => {
    const { path } = await makeOutput(`${textOf(rowOf('1'))}2,"https://b`);
    await truncate(path, (1 << 26) + 1000);
    await expect(openOutput(path)).rejects.toThrow('a quote too many or too few in the record at line 3');
    expect((await stat(path)).size).toBe((1 << 26) + 1000);
  });

  test('a broken record in the midst of others is refused with its line', async () => {
    const { path } = await makeOutput(`${textOf(rowOf('1\n1', 'a'))}a,b\n${formatRecord(rowOf('2'), ',')}`);
    await expect(openOutput(path)).rejects.toThrow('has 2 cells in the record at line 4, not 8');
  });

  test('is left alone by inspectOutput', async () => {
    const content = `${textOf(rowOf('1'), rowOf('2', 'b', 'sim-1'))}3,https`;
    const { path, read } = await makeOutput(content);
    const options = outputOptions(path);
    const inspected = await inspectOutput(options);
    expect(inspected).toMatchObject({ ending: 'torn', hasReal: true, hasSimulated: true });
    expect(options.index.rows).toBe(2);
    expect(await read()).toBe(content);
    expect(await inspectOutput(outputOptions(`${path}.none`))).toBeUndefined();
    expect(await readdir(dirname(path))).toEqual(['out.csv']);
  });

  const text = fc.string({ unit: fc.constantFrom('a', ' ', '"', ',', ';', '\n', '\r', 'é', '🙂', '\0') });
  const rows = fc.array(fc.array(text, { minLength: 6, maxLength: 6 }), { maxLength: 4 });

  test(
    'at any byte leaves whole records, and appending goes on behind them',
    { timeout: 120_000 },
    async () => {
      const { path } = await makeOutput();
      const property = fc.asyncProperty(rows, fc.nat(), async (cells, at) => {
        const all = cells.map(([id = '', ...four], number) => [
          id,
          `https://${number}`,
          ...four.slice(0, 4),
          `m${number}`,
          DESCRIBED_AT,
        ]);
        const whole = Buffer.from(textOf(...all));
        const cut = at % (whole.length + 1);
        await writeFile(path, whole.subarray(0, cut));
        const options = outputOptions(path);
        await inspectOutput(options);
        const inspected = options.index.rows;
        const output = await openOutput(path);
        const opened = output.rows();
        const next = rowOf('next', 'next');
        await output.append([next]);
        await output.close();

        // A row without its line end is whole.
        const ends = all.map((_, number) => Buffer.byteLength(textOf(...all.slice(0, number + 1))) - 1);
        const kept = all.slice(0, ends.filter((end) => end <= cut).length);
        const content = await readFile(path, 'utf8');
        expect(content).toBe(textOf(...kept, next));
        expect(parse(content).slice(1)).toEqual([...kept, next]);
        expect(output.placeOf('next')).toEqual(Buffer.byteLength(textOf(...kept)));
        expect([inspected, opened]).toEqual([kept.length, kept.length]);
      });
      await fc.assert(property, { numRuns: 150 });
    },
  );
});

describe('appending', () => {
  test('writes a group at once and indexes its rows', async () => {
    const { path, read } = await makeOutput();
    const output = await openOutput(path);
    const rows = [rowOf('1', 'grün'), rowOf('2', '日本'), rowOf('3,"\n', 'c')];
    await output.append(rows);
    await output.append([]);
    expect([await read(), output.rows()]).toEqual([textOf(...rows), 3]);
    for (const [number, image] of ['grün', '日本', 'c'].entries()) {
      const { prompts, messageId, describedAt } = await output.readDescribed(image);
      expect([...prompts, messageId, describedAt]).toEqual(rows[number]?.slice(2));
    }
  });

  test('refuses rows that are not as long as the header', async () => {
    const { path, read } = await makeOutput();
    const output = await openOutput(path);
    await expect(output.append([described('a')])).rejects.toThrow('a row has 6 cells, not 8');
    expect(await read()).toBe(HEADER);
  });

  test('takes cells of several megabytes', async () => {
    const { path } = await makeOutput();
    const huge = '"é",\n'.repeat(500_000);
    const output = await openOutput(path);
    await output.append([rowOf(huge, 'a'), rowOf('2', 'b')]);
    await output.close();
    const again = await openOutput(path, { keyColumn: { index: 0, path: [] } });
    expect(again.index.has({ key: huge })).toBe(true);
    expect((await again.readDescribed('a')).prompts[0]).toBe('a 1');
    expect((await again.readDescribed('b')).prompts[0]).toBe('b 1');
  });

  test('stops for good when the output is deleted', async () => {
    const { path } = await makeOutput();
    const output = await openOutput(path);
    await output.append([rowOf('1')]);
    await rename(path, `${path}.away`);
    await expect(output.append([rowOf('2')])).rejects.toThrow(FatalError);
    await rename(`${path}.away`, path);
    await expect(output.append([rowOf('2')])).rejects.toThrow('was deleted while the run goes on');
  });

  test('stops for good when another file takes its place', async () => {
    const { path, read } = await makeOutput();
    const output = await openOutput(path);
    await writeFile(`${path}.new`, HEADER);
    await rename(`${path}.new`, path);
    await expect(output.append([rowOf('1')])).rejects.toThrow('was replaced while the run goes on');
    expect(await read()).toBe(HEADER);
  });
});

describe('reading prompts', () => {
  test('reads rows that were appended long ago, and those found at opening', async () => {
    const { path } = await makeOutput(textOf(rowOf('old', 'old')));
    const output = await openOutput(path);
    const rows = Array.from({ length: 700 }, (_, number) => rowOf(String(number)));
    await output.append(rows);
    expect((await output.readDescribed('old')).messageId).toBe('message-old');
    for (const number of [0, 350, 699]) {
      expect(await output.readDescribed(String(number))).toEqual({
        status: 'described',
        prompts: [`${number} 1`, `${number} 2`, `${number} 3`, `${number} 4`],
        messageId: `message-${number}`,
        describedAt: DESCRIBED_AT,
      });
    }
  });

  test('ends the run when the row is not there any more', async () => {
    const { path } = await makeOutput(textOf(rowOf('1')));
    const output = await openOutput(path);
    await truncate(path, HEADER.length + 5);
    await expect(output.readDescribed('1')).rejects.toThrow(FatalError);
    await rm(path);
  });
});

test('an abort ends the reading with its reason', async () => {
  const { path } = await makeOutput(textOf(rowOf('1')));
  const signal = AbortSignal.abort(new Error('interrupted'));
  await expect(openOutput(path, { signal })).rejects.toThrow('interrupted');
});
