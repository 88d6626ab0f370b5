import { readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FAILURE_COLUMNS, MESSAGE_COLUMNS, PROMPT_COLUMNS } from '../../src/shared/jobs.js';
import { readFailures } from '../../src/writer/failures.js';
import { EarlierOutputs } from '../../src/writer/earlier-outputs.js';
import { COLUMNS, described, formatRecord, imageOf, makeFolder, outputOptions } from './fixtures.js';

const OUTPUT = formatRecord([...COLUMNS, ...PROMPT_COLUMNS, ...MESSAGE_COLUMNS], ',');
const HEADER = formatRecord([...COLUMNS, ...FAILURE_COLUMNS], ',');

/** A failed row: its key, its image's name and its last message. */
function failed(key: string, name: string, messageId: string, code = 'deadline'): string {
  return formatRecord([key, `https://${name}`, code, `reason of ${messageId}`, '1', messageId], ',');
}

/** Writes the files of two nights and reads them. */
async function readNights(files: Readonly<Record<string, string>>, keyed = false) {
  const folder = await makeFolder();
  const nights = ['one.csv', 'two.csv'];
  for (const night of nights) await writeFile(join(folder, night), OUTPUT);
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  const own = join(folder, 'own.csv');
  const options = outputOptions(own, keyed);
  const paths = nights.map((night) => join(folder, night));
  const earlier = await EarlierOutputs.read(paths, options);
  const failures = await readFailures(earlier.files, options, (row) => options.index.has(row));
  const lastMessage = (name: string) =>
    failures.get(keyed ? name : imageOf(`https://${name}`))?.outcome.messageId;
  return { folder, failures, lastMessage };
}

test('the newest night that has a row counts, and of its file the last record', async () => {
  const { lastMessage, failures } = await readNights({
    'one.failed.csv': HEADER + failed('1', 'a', 'a1') + failed('2', 'b', 'b1'),
    'two.failed.csv':
      HEADER + failed('1', 'a', 'a2') + failed('3', 'a', 'a3') + failed('4', 'c', 'c2', 'rejected'),
  });
  expect(['a', 'b', 'c', 'd'].map(lastMessage)).toEqual(['a3', 'b1', 'c2', undefined]);
  expect(failures.get(imageOf('https://c'))).toEqual({
    outcome: { status: 'failed', code: 'rejected', reason: 'reason of c2', attempts: 1, messageId: 'c2' },
    image: imageOf('https://c'),
  });
});

test('what a night that was killed has left counts before its failures file, but for a torn record', async () => {
  const { lastMessage, folder } = await readNights({
    'two.failed.csv': HEADER + failed('1', 'a', 'a1') + failed('2', 'b', 'b1'),
    'two.failed.csv.partial': (HEADER + failed('1', 'a', 'a2') + failed('2', 'b', 'b2')).slice(0, -1),
  });
  expect(['a', 'b'].map(lastMessage)).toEqual(['a2', 'b1']);
  expect(await readdir(folder)).toContain('two.failed.csv.partial');
});

test('rows that any night has described are no failures, by their keys where there are keys', async () => {
  const files = {
    'one.csv': OUTPUT + formatRecord(['2', 'https://b', ...described('b')], ','),
    'two.failed.csv': HEADER + failed('1', 'b', 'b1') + failed('2', 'c', 'c1') + failed('3', 'd', 'd1'),
  };
  const byImage = await readNights(files);
  expect(['b', 'c', 'd'].map(byImage.lastMessage)).toEqual([undefined, 'c1', 'd1']);
  const byKey = await readNights(files, true);
  expect(['1', '2', '3'].map(byKey.lastMessage)).toEqual(['b1', undefined, 'd1']);
});

test('a file that is replaced meanwhile is read as it was, and one that is none of ours is refused', async () => {
  const { folder, lastMessage } = await readNights({ 'one.failed.csv': HEADER + failed('1', 'a', 'a1') });
  const path = join(folder, 'one.failed.csv');
  await writeFile(`${path}.new`, HEADER);
  await rename(`${path}.new`, path);
  expect(lastMessage('a')).toBe('a1');
  await expect(readNights({ 'two.failed.csv': 'id,error_code\n1,lost\n' })).rejects.toThrow(
    /two\.failed\.csv .*move it away/,
  );
});
