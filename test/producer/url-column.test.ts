import { describe, expect, test } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { checkOwnColumns, columnAt, findUrlColumn } from '../../src/producer/columns.js';
import { openText } from './manifest-texts.js';

const base = new URL('https://images.example.org/');

async function find(text: string, options?: Parameters<typeof findUrlColumn>[2]): Promise<number> {
  const manifest = await openText(text);
  return findUrlColumn(manifest.columns, manifest.sample, options).index;
}

describe('findUrlColumn', () => {
  test.each([
    ['the only one with URLs', 'id,image\n1,http://a/b\n2,https://a/c\n', 1],
    ['one with empty cells', 'image,id\n,1\n,2\nhttp://a/b,3\n', 0],
    ['one with a few bad values', 'id,image\n1,http://a/b\n2,n/a\n3,HTTPS://a/c\n', 1],
    [
      'not one that holds a URL among other text',
      'note,image\nhttp://x/y,http://a/1\nnone,http://a/2\nlost,http://a/3\n',
      1,
    ],
    ['not one with text around URLs', 'note,image\nsee http://x/y,http://a/1\n', 1],
    ['whatever bad records hold', 'image,id\nhttp://a/1,1\nx,http://a/2,3\ny,http://a/2,3\n', 0],
  ])('finds %s', async (_, text, index) => {
    expect(await find(text)).toBe(index);
  });

  test('finds the example’s', async () => {
    const manifest = await openManifest({ path: 'examples/paintings.csv' });
    expect(manifest.columns[findUrlColumn(manifest.columns, manifest.sample).index]).toBe('thumbnailUrl');
  });

  test('takes the named column whatever it holds', async () => {
    expect(await find('id,image\nx,http://a/b\n', { urlColumn: 'id' })).toBe(0);
  });

  test('lists the columns with a value each when none has URLs', async () => {
    await expect(find('id,path\n1,"a\nb"\n')).rejects.toThrow(
      'no column holds http(s) URLs in the first records: say --url-column <name> (and --base-url <url> if its paths are relative): id (1), path (a b)',
    );
  });

  test('lists only those that could be it when several have URLs', async () => {
    await expect(find(`id,small,large\n1,http://a/s,http://a/${'x'.repeat(99)}\n`)).rejects.toThrow(
      `more than one column holds http(s) URLs in the first records: say --url-column <name>: small (http://a/s), large (http://a/${'x'.repeat(50)}…)`,
    );
  });

  test('lists no more columns than fit a message', async () => {
    const names = Array.from({ length: 40 }, (_, index) => `c${index}`);
    await expect(find(`${names.join()}\n${names.map(() => '').join()}\n`)).rejects.toThrow(
      /c11 \(empty\) and 28 more$/,
    );
  });

  test('suggests the nearest name for a column that is not there', async () => {
    await expect(find('id,thumbnailUrl\n1,http://a/b\n', { urlColumn: 'thumbnailurl' })).rejects.toThrow(
      '--url-column thumbnailurl: the manifest has no such column: did you mean thumbnailUrl? (it has id, thumbnailUrl)',
    );
    await expect(find('id,image\n1,http://a/b\n', { urlColumn: 'zzzzzz' })).rejects.toThrow(
      '--url-column zzzzzz: the manifest has no such column (it has id, image)',
    );
  });

  test.each(['image_path', 'url', 'IMAGE', 'thumbnailUrl'])(
    'with a base URL takes the only header like %s',
    async (name) => {
      expect(await find(`id,${name}\n1,a.jpg\n`, { baseUrl: base })).toBe(1);
    },
  );

  test('with a base URL wants a name when the headers leave a choice', async () => {
    await expect(find('path,file\na,b\n', { baseUrl: base })).rejects.toThrow(
      'no column is named like an image or a url: say --url-column <name>: path (a), file (b)',
    );
    await expect(find('image,url,id\na,b,c\n', { baseUrl: base })).rejects.toThrow(
      'more than one column is named like an image or a url: say --url-column <name>: image (a), url (b)',
    );
    expect(await find('image,url,id\na,b,c\n', { baseUrl: base, urlColumn: 'url' })).toBe(1);
  });
});

describe('columnAt', () => {
  test('finds a column by its exact name only', () => {
    expect(columnAt('--key-column', ['id', 'url'], 'id')).toEqual({ index: 0, path: [] });
    expect(() => columnAt('--key-column', ['id', 'url'], 'ID')).toThrow(
      '--key-column ID: the manifest has no such column: did you mean id?',
    );
  });
});

test('the manifest’s columns and those of answers are kept apart from one another and from the output’s own', () => {
  const check = (columns: string[], answer: string[]) => () => checkOwnColumns(columns, answer, 'm.csv');
  expect(check(['id', 'prompt_1', 'error'], ['prompt_1'])).toThrow(
    "m.csv: the output adds columns named prompt_1, error of its own: rename the manifest's",
  );
  expect(check(['id', 'prompt_1'], ['caption'])).not.toThrow();
  expect(check(['id'], ['caption', 'described_at'])).toThrow(
    /columns named described_at of its own: name the fields/,
  );
});
