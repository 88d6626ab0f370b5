import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FatalError, UsageError } from '../../src/shared/errors.js';
import type { ErrorCode } from '../../src/shared/jobs.js';
import {
  type FailureOptions,
  type FailureRecord,
  FailuresFile,
  failureColumnsIn,
  readFailures,
} from '../../src/writer/failures.js';
import { COLUMNS, imageOf, makeFolder } from './fixtures.js';
import { PROMPT_COLUMNS } from '../../src/shared/jobs.js';

/** Of version 0.1. */
const OLD_HEADER = 'id,url,error_code,error,attempts,message_id\n';
const HEADER = 'id,url,error_code,error,attempts,message_id,answer\n';
const keyed = { keyColumn: { index: 0, path: [] } };

/** A failure of the row `id`, with its key where there are keys. */
function failureOf(
  id: string,
  options: { image?: string; code?: ErrorCode; keyed?: boolean } = {},
): FailureRecord {
  const { image = id, code = 'network', keyed: hasKey = true } = options;
  const url = `https://${image}`;
  return {
    row: { cells: [id, url], key: hasKey ? id : undefined, image: imageOf(url) },
    outcome: { status: 'failed', code, reason: `reason of ${id}`, attempts: 5, messageId: `m-${image}` },
  };
}

async function makePath(content?: string, partial?: string): Promise<string> {
  const path = join(await makeFolder(), 'out.failed.csv');
  if (content !== undefined) await writeFile(path, content);
  if (partial !== undefined) await writeFile(`${path}.partial`, partial);
  return path;
}

async function openFailures(path: string, options: Partial<FailureOptions> = {}) {
  const defaults = {
    path,
    columns: COLUMNS,
    delimiter: ',',
    urlColumn: { index: 1, path: [] },
    answerColumns: PROMPT_COLUMNS,
  };
  const all = { ...defaults, ...options };
  const failures = await FailuresFile.open(all);
  onTestFinished(() => failures.close());
  const previous = await readFailures([{ path: path.replace(/\.failed\.csv$/, '.csv') }], all);
  return Object.assign(failures, { previous });
}

async function ids(path: string): Promise<string[]> {
  return parse(await readFile(path, 'utf8'))
    .slice(1)
    .map(([id = '']) => id);
}

async function files(path: string): Promise<string[]> {
  return await readdir(dirname(path));
}

describe('a run', () => {
  test('is told how an image failed in it once that is on disk, and only by what was the image’s outcome', async () => {
    const failures = await openFailures(
      await makePath(`${OLD_HEADER}0,https://0,network,reason of 0,5,m-0\n`),
      keyed,
    );
    const image = (id: string) => imageOf(`https://${id}`);
    expect(failures.failedNow(image('é"'))).toBeUndefined();
    await failures.append([failureOf('1')]);
    await failures.append([{ ...failureOf('é"'), image: image('é"') }]);
    await failures.append([{ ...failureOf('3'), image: image('3') }]);
    await failures.append([{ ...failureOf('3', { code: 'deadline' }), image: image('3') }]);
    expect(failures.failedNow(image('é"'))).toEqual(failureOf('é"').outcome);
    expect(failures.failedNow(image('3'))).toMatchObject({ code: 'deadline' });
    expect(['0', '1'].map((id) => failures.failedNow(image(id)))).toEqual([undefined, undefined]);
  });

  test('writes nothing as long as nothing fails', async () => {
    const path = await makePath();
    const failures = await openFailures(path);
    expect(await failures.replace(() => true)).toBe(0);
    expect(await files(path)).toEqual([]);
  });

  test('has each failure on disk when it was appended, and in the failures file at its end', async () => {
    const path = await makePath();
    const failures = await openFailures(path, keyed);
    await failures.append([failureOf('1')]);
    await failures.append([
      {
        row: { cells: ['2,"é\n', ''], key: '2' },
        outcome: { status: 'failed', code: 'invalid-url', reason: 'no URL', attempts: 0 },
      },
    ]);
    await failures.append([failureOf('3')]);
    const content =
      `${HEADER}1,https://1,network,reason of 1,5,m-1,\n` +
      '"2,""é\n",,invalid-url,no URL,0,,\n3,https://3,network,reason of 3,5,m-3,\n';
    expect(await readFile(`${path}.partial`, 'utf8')).toBe(content);
    expect(await files(path)).toEqual(['out.failed.csv.partial']);
    expect(await failures.replace((_, isAdded) => isAdded)).toBe(3);
    expect(await readFile(path, 'utf8')).toBe(content);
    expect(await files(path)).toEqual(['out.failed.csv']);
  });

  test('brings bad records to as many cells as there are columns', async () => {
    const path = await makePath();
    const failures = await openFailures(path);
    for (const cells of [['short'], ['a', 'b', 'c', 'd']]) {
      await failures.append([
        {
          row: { cells },
          outcome: { status: 'failed', code: 'bad-record', reason: 'line 3', attempts: 0 },
        },
      ]);
    }
    await failures.replace((_, isAdded) => isAdded);
    expect(await readFile(path, 'utf8')).toBe(
      `${HEADER}short,,bad-record,line 3,0,,\na,b,bad-record,line 3,0,,\n`,
    );
  });

  test('keeps of the earlier failures those that still are, and drops those it has added anew', async () => {
    const path = await makePath();
    const first = await openFailures(path, keyed);
    for (const id of ['1', '2', '3', '4']) await first.append([failureOf(id)]);
    await first.replace(() => true);
    const second = await openFailures(path, keyed);
    await second.append([failureOf('3', { code: 'deadline' })]);
    const asked: (string | undefined)[] = [];
    const count = await second.replace(({ row }, isAdded) => {
      if (isAdded) return true;
      asked.push(row.key);
      return row.key !== '2';
    });
    expect(asked).toEqual(['1', '2', '4']);
    expect(count).toBe(3);
    expect(await ids(path)).toEqual(['1', '4', '3']);
    expect(await readFile(path, 'utf8')).toContain('3,https://3,deadline');
  });

  test('removes the failures file when nothing is failed any more', async () => {
    const path = await makePath(`${OLD_HEADER}1,https://1,network,x,5,\n`);
    const failures = await openFailures(path, keyed);
    expect(await failures.replace((_, isAdded) => isAdded)).toBe(0);
    expect(await files(path)).toEqual([]);
  });

  test('without keys replaces all failures of an image by those it adds', async () => {
    const path = await makePath();
    const first = await openFailures(path);
    for (const id of ['1', '2', '3']) await first.append([failureOf(id, { image: 'same', keyed: false })]);
    await first.append([failureOf('4', { keyed: false })]);
    await first.replace(() => true);
    expect(await ids(path)).toEqual(['1', '2', '3', '4']);
    const second = await openFailures(path);
    for (const id of ['1', '2']) await second.append([failureOf(id, { image: 'same', keyed: false })]);
    await second.replace(() => true);
    expect(await ids(path)).toEqual(['4', '1', '2']);
  });

  test('tells failures that every run finds anew by their records, not by a key that may be another row', async () => {
    const path = await makePath();
    const first = await openFailures(path, keyed);
    await first.append([failureOf('1')]);
    await first.append([failureOf('1', { image: 'other', code: 'duplicate-key' })]);
    await first.replace(() => true);
    const second = await openFailures(path, keyed);
    expect(second.previous.get('1')?.outcome.code).toBe('network');
    await second.append([failureOf('1', { image: 'other', code: 'duplicate-key' })]);
    await second.replace(() => true);
    expect(parse(await readFile(path, 'utf8')).map((cells) => cells[2])).toEqual([
      'error_code',
      'network',
      'duplicate-key',
    ]);
  });
});

describe('what a model answered in place of prompts', () => {
  const answered = (id: string, answer: string): FailureRecord => {
    const failure = failureOf(id, { code: 'bad-response' });
    return { ...failure, outcome: { ...failure.outcome, answer } };
  };
  const column = async (path: string, name: string) => {
    const records: Record<string, string>[] = parse(await readFile(path, 'utf8'), { columns: true });
    return records.map((record) => record[name]);
  };

  test('is the last column, also where the partial file of a killed run and an older one are merged', async () => {
    const path = await makePath(`${OLD_HEADER}1,https://1,network,old,5,\n`);
    const killed = await openFailures(path, keyed);
    await killed.append([answered('2', 'I see "a barn",\nand no more.')]);
    await killed.close();
    const next = await openFailures(path, keyed);
    await next.append([failureOf('3')]);
    expect(await next.replace(() => true)).toBe(3);
    expect(await readFile(path, 'utf8')).toMatch(/^id,url,error_code,error,attempts,message_id,answer\n/);
    expect(await column(path, 'answer')).toEqual(['', 'I see "a barn",\nand no more.', '']);
  });

  test('is not kept in memory, since there may be very many', async () => {
    const path = await makePath();
    const failures = await openFailures(path, keyed);
    await failures.append([{ ...answered('1', 'long'), image: 'image' }]);
    expect(failures.failedNow('image')?.answer).toBeUndefined();
    await failures.replace(() => true);
    expect((await openFailures(path, keyed)).previous.get('1')?.outcome.answer).toBeUndefined();
    expect(await column(path, 'answer')).toEqual(['long']);
  });

  test('is left out where the manifest has a column of that name', async () => {
    const path = await makePath();
    const options = { ...keyed, columns: [...COLUMNS, 'answer'] };
    const failures = await openFailures(path, options);
    const failure = answered('1', 'of the model');
    await failures.append([
      { ...failure, row: { ...failure.row, cells: ['1', 'https://1', 'of the manifest'] } },
    ]);
    await failures.replace(() => true);
    expect(await column(path, 'answer')).toEqual(['of the manifest']);
    expect(await failureColumnsIn(path)).toMatchObject({ columns: options.columns });
    expect(await readFile(path, 'utf8')).toMatch(/,message_id\n/);
  });
});

describe('earlier failures', () => {
  test('are found by key, with all that is known of them', async () => {
    const path = await makePath(
      `${OLD_HEADER}1,https://1,network,"a ""reason"", long",5,m-1\n2,https://2,rejected,no,1,\n3,,invalid-url,no URL,0,\n`,
    );
    const failures = await openFailures(path, keyed);
    expect(failures.previous.get('1')).toEqual({
      outcome: {
        status: 'failed',
        code: 'network',
        reason: 'a "reason", long',
        attempts: 5,
        messageId: 'm-1',
      },
      image: imageOf('https://1'),
    });
    expect(failures.previous.get('2')?.outcome.messageId).toBeUndefined();
    expect(failures.previous.get('3')?.image).toBeUndefined();
    expect(failures.previous.has('4')).toBe(false);
  });

  test('are found in a file whose first column begins with a byte order mark', async () => {
    const path = await makePath();
    const columns = ['\ufeffid', 'url'];
    const failures = await openFailures(path, { ...keyed, columns });
    await failures.append([failureOf('1')]);
    await failures.replace(() => true);
    expect(await failureColumnsIn(path)).toMatchObject({ columns });
    expect((await openFailures(path, { ...keyed, columns })).previous.has('1')).toBe(true);
  });

  test('are found by image without keys, the last one of each', async () => {
    const path = await makePath(`${OLD_HEADER}1,https://a,network,x,4,m1\n2,https://a,deadline,y,5,m2\n`);
    const failures = await openFailures(path);
    expect(failures.previous.get(imageOf('https://a'))?.outcome).toMatchObject({
      code: 'deadline',
      messageId: 'm2',
    });
  });

  test('are read from wherever they are, with reasons of any length', async () => {
    const long = 'é, "x" '.repeat(5000);
    const path = await makePath();
    const first = await openFailures(path, keyed);
    for (let id = 0; id < 50; id++) {
      const failure = failureOf(String(id));
      await first.append([{ ...failure, outcome: { ...failure.outcome, reason: `${id} ${long}` } }]);
    }
    await first.replace(() => true);
    const second = await openFailures(path, keyed);
    for (const id of ['0', '49', '25']) expect(second.previous.get(id)?.outcome.reason).toBe(`${id} ${long}`);
  });

  test('with a code that somebody edited are tried again with their message', async () => {
    const path = await makePath(`${OLD_HEADER}1,https://1,typo,x,many,m-1\n`);
    const failures = await openFailures(path, keyed);
    expect(failures.previous.get('1')?.outcome).toMatchObject({
      code: 'lost',
      attempts: 0,
      messageId: 'm-1',
    });
  });

  test('are mapped by column name when the columns have changed', async () => {
    const path = await makePath(
      'message_id;error;attempts;error_code;url;gone;id\r\nm-1;x;2;http;https://1;g;1',
    );
    const failures = await openFailures(path, {
      ...keyed,
      columns: ['id', 'new', 'url'],
      urlColumn: { index: 2, path: [] },
    });
    expect(failures.previous.get('1')).toEqual({
      outcome: { status: 'failed', code: 'http', reason: 'x', attempts: 2, messageId: 'm-1' },
      image: imageOf('https://1'),
    });
    await failures.replace(() => true);
    expect(await readFile(path, 'utf8')).toBe(
      'id,new,url,error_code,error,attempts,message_id,answer\n1,,https://1,http,x,2,m-1,\n',
    );
  });

  test.each([
    ['id,url\n1,https://1\n', 'it has no column "error_code"'],
    ['something else', 'it has no column "error_code"'],
    [HEADER.replace('url', 'link'), 'it has no column "url"'],
    [`${OLD_HEADER}1,https://1\n`, 'has 2 cells in the record at line 2, not 6'],
    [`${OLD_HEADER}1,https://1,network,"x,5,m\n`, 'has a quote too many or too few in the record at line 2'],
  ])('in a file that is none of ours are refused: %j', async (content, message) => {
    const path = await makePath(content);
    await expect(openFailures(path)).rejects.toThrow(UsageError);
    await expect(openFailures(path)).rejects.toThrow(message);
    expect(await readFile(path, 'utf8')).toBe(content);
  });
});

describe('after a crash', () => {
  test('merges what the killed run left, later failures first, and cuts the torn one', async () => {
    const path = await makePath(
      `${OLD_HEADER}1,https://1,network,old,5,m-old\n2,https://2,network,old,5,\n`,
      `${OLD_HEADER}1,https://1,deadline,new,5,m-new\n3,https://3,rejected,new,1,\n4,https://4,network,"to`,
    );
    const failures = await openFailures(path, keyed);
    expect(failures.previous.get('1')?.outcome).toMatchObject({ code: 'deadline', messageId: 'm-new' });
    expect(failures.previous.get('2')?.outcome.code).toBe('network');
    expect(failures.previous.get('4')).toBeUndefined();
    expect(await ids(path)).toEqual(['2', '1', '3']);
    expect(await files(path)).toEqual(['out.failed.csv']);
  });

  test.each(['', HEADER.slice(0, 10), HEADER])(
    'forgets a partial file that holds no failure: %j',
    async (partial) => {
      const path = await makePath(undefined, partial);
      await openFailures(path, keyed);
      expect(await files(path)).toEqual([]);
    },
  );

  test('loses no failure that was flushed, wherever the next one was cut', async () => {
    const path = await makePath();
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(fc.string(), { minLength: 1, maxLength: 5 }),
        async (at, reasons) => {
          await rm(path, { force: true });
          const failures = await openFailures(path, keyed);
          const flushedAt: number[] = [];
          for (const [id, reason] of reasons.entries()) {
            const failure = failureOf(String(id));
            await failures.append([{ ...failure, outcome: { ...failure.outcome, reason } }]);
            flushedAt.push((await readFile(`${path}.partial`)).length);
          }
          await failures.close();
          const whole = await readFile(`${path}.partial`);
          const cut = at % (whole.length + 1);
          await writeFile(`${path}.partial`, whole.subarray(0, cut));
          const again = await openFailures(path, keyed);
          for (const [id, reason] of reasons.entries()) {
            const found = again.previous.get(String(id))?.outcome.reason;
            expect(found).toBe((flushedAt[id] ?? 0) <= cut ? reason : undefined);
          }
          await again.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  test('between the new file and the removal of the partial one nothing comes twice', async () => {
    const lines = '1,https://1,network,x,5,m\n2,https://2,network,x,5,m\n';
    const path = await makePath(OLD_HEADER + lines, OLD_HEADER + lines);
    await openFailures(path, keyed);
    expect(await ids(path)).toEqual(['1', '2']);
  });
});

test('ends the run when the failures cannot be written, and loses none that were', async () => {
  const path = await makePath();
  const failures = await openFailures(path, keyed);
  await failures.append([failureOf('1')]);
  const before = await readFile(`${path}.partial`);
  await rm(`${path}.partial`);
  await expect(failures.append([failureOf('2')])).rejects.toThrow(FatalError);
  await expect(failures.replace(() => true)).resolves.toBe(0);
  await writeFile(`${path}.partial`, before);
  expect((await openFailures(path, keyed)).previous.get('1')).toBeDefined();
});

test('says in one line when the folder cannot be written', async () => {
  const path = await makePath('a file');
  const failures = openFailures(join(path, 'x.failed.csv'));
  await expect(failures).rejects.toThrow(UsageError);
  await expect(failures).rejects.toThrow('cannot be opened: the folder is a file (ENOTDIR)');
});
