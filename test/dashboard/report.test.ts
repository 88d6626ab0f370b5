import { once } from 'node:events';
import { mkdir, realpath, rename, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { type ReportOptions, writeReport } from '../../src/dashboard/report.js';
import { acquireFileLock } from '../../src/shared/file-lock.js';
import { runCommand } from '../helpers/cli.js';
import { type TestBrowser, chromiumAvailable, seriousTroubles, startBrowser } from '../helpers/browser.js';
import { HOSTILE, writeResults } from '../helpers/results-fixture.js';
import { Workspace } from '../helpers/workspace.js';

const RUN = 'r00000000001';
let workspace: Workspace;
let folder: string;

beforeAll(async () => {
  workspace = await Workspace.create();
  folder = await realpath(workspace.path);
});
afterAll(() => workspace.remove());

const NEVER = new AbortController().signal;

function report(output: string, options: Partial<ReportOptions> = {}) {
  return writeReport({ output, signal: NEVER, onProgress: () => undefined, ...options });
}

const dataSchema = z.object({
  described: z.object({
    rows: z.array(z.object({ n: z.number(), link: z.string().optional(), thumb: z.string().optional() })),
  }),
  failed: z.object({ rows: z.array(z.object({ code: z.string() })) }),
});

async function dataOf(path: string) {
  const text = await workspace.read(path);
  return dataSchema.parse(JSON.parse(/id="data">(.*?)<\/script>/.exec(text)?.[1] ?? ''));
}

test('holds the counts of verify and the newest rows, and takes the place of the report before', async () => {
  const output = await writeResults(folder, 'a.csv', { run: RUN });
  const rows = Array.from({ length: 120 }, (_, at) => `${at + 1},t,http://images.test/${at + 1}.jpg\n`);
  const failed = [
    'f1,t,http://images.test/f1.jpg\n',
    'f2,t,javascript:1\n',
    'f3,t,http://images.test/f3.jpg\n',
  ];
  await workspace.write('m.csv', `id,title,image\n${rows.join('')}${failed.join('')}`);
  const counted = await runCommand(['verify', 'm.csv', 'a.csv', '--json'], { cwd: folder });
  const made = await report(output, { prices: { perImage: 0.5 } });
  expect(made).toMatchObject({ path: join(folder, 'a.report.html'), described: 120, failed: 3, shown: 123 });
  expect(JSON.parse(counted.stdout)).toMatchObject({ described: made.described, failed: made.failed });
  const { described } = await dataOf('a.report.html');
  expect(described.rows.map(({ n }) => n)).toEqual(Array.from({ length: 120 }, (_, at) => at + 1));
  const text = await workspace.read('a.report.html');
  expect(text).toMatch(/Cost<\/dt>\s*<dd>60\.00/);
  expect(text).not.toContain('still being written');
  const lock = await acquireFileLock(`${output}.lock`, { what: 'the output' });
  onTestFinished(() => lock.release());
  expect(await report(output, { limit: 10 })).toMatchObject({ shown: 13 });
  expect((await dataOf('a.report.html')).described.rows.map(({ n }) => n)).toEqual(
    Array.from({ length: 10 }, (_, at) => at + 111),
  );
  expect(await workspace.read('a.report.html')).toMatch(
    /still being written[\s\S]*Of 123 rows the newest 13/,
  );
  for (const ending of ['jsonl', 'parquet'])
    expect(await report(await writeResults(folder, `b.${ending}`, { run: RUN }))).toMatchObject({
      shown: 123,
    });
});

test('says what the run has cost where the prices are not named again', async () => {
  const output = await writeResults(folder, 'priced.csv', { run: RUN, rows: 2 });
  const runFile = z.record(z.string(), z.json()).parse(JSON.parse(await workspace.read('priced.csv.run')));
  const series = { from: 0, widthMs: 5000, described: [1, 1], failed: [0, 0], cost: [0.25, 2.5] };
  await workspace.write('priced.csv.run', JSON.stringify({ ...runFile, series }));
  await report(output);
  expect(await workspace.read('priced.report.html')).toMatch(/Cost<\/dt>\s*<dd>2\.50/);
});

test('says in one line why there is none', async () => {
  const output = await writeResults(folder, 'bad.csv', { run: RUN, rows: 1 });
  await workspace.write('text.html', 'mine');
  await workspace.write('notes.csv', 'a,b\n1,2\n');
  await workspace.write(
    'empty.csv',
    'id,image,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at\n',
  );
  await rename(
    `${await writeResults(folder, 'x.csv', { run: RUN, rows: 1 })}.run`,
    join(folder, 'empty.csv.run'),
  );
  await writeResults(folder, 'damaged.csv', { run: RUN, rows: 1 });
  await workspace.write('damaged.failed.csv', 'id,title,image,error_code,error,attempts,message_id\n1,"2\n');
  await workspace.write('torn.csv', `${await workspace.read('bad.csv')}x\n1,"2`);
  await workspace.write('torn.csv.run', await workspace.read('bad.csv.run'));
  const cases: [args: string[], line: RegExp][] = [
    [['none.csv'], /there is no output .*none\.csv/],
    [['notes.csv'], /is no output of bulk-describe/],
    [['empty.csv'], /has no rows yet, and none that failed/],
    [['x.csv'], /x\.csv\.run is missing/],
    [['damaged.csv'], /the failures file .* has a quote too many or too few/],
    [['torn.csv'], /has 1 cells in the record at line 3, not 9/],
    [['bad.csv', '-o', 'bad.csv'], /belongs to the output itself/],
    [['bad.csv', '-o', 'bad.failed.csv'], /belongs to the output itself/],
    [['bad.csv', '-o', 'bad.pdf'], /a report is a \.html/],
    [['bad.csv', '-o', 'text.html'], /is there already, and is no report/],
    [['bad.csv', '-o', 'none/a.html'], /cannot be written: the folder does not exist/],
    [['bad.csv', '--limit', '100001'], /holds 100,000 rows at most/],
  ];
  for (const [args, line] of cases) {
    const { code, stderr } = await runCommand(['report', ...args], { cwd: folder });
    expect([args, code, line.test(stderr), stderr.trim().split('\n').length, stderr]).toEqual([
      args,
      1,
      true,
      1,
      stderr,
    ]);
  }
  expect(await workspace.read('text.html')).toBe('mine');
  const done = await runCommand(['report', output, '-o', 'text.html', '--overwrite'], { cwd: folder });
  expect([done.code, done.stdout]).toEqual([
    0,
    expect.stringContaining('text.html (0.0 MB): 1 described and 3 failed\n'),
  ]);
});

test('links images on this machine beside it, or holds small pictures of those that can be had', async () => {
  await mkdir(join(folder, 'p'));
  const picture = sharp({ create: { width: 900, height: 300, channels: 3, background: 'red' } });
  await picture.png().toFile(join(folder, 'p', 'a #1.png'));
  const bytesOf = picture.png().toBuffer();
  const web = createServer((_request, response) => void bytesOf.then((png) => response.end(png)));
  onTestFinished(() => void web.close());
  await once(web.listen(0, '127.0.0.1'), 'listening');
  const url = `http://127.0.0.1:${z.object({ port: z.number() }).parse(web.address()).port}/b.png`;
  const images = ['p/a #1.png', '/etc/passwd', url, 'p/none.png'];
  const output = await writeResults(folder, 'c.csv', { run: RUN, rows: 4, images, imageRoot: folder });
  await report(output);
  const linked = (await dataOf('c.report.html')).described.rows.map(({ thumb }) => thumb);
  expect(linked).toEqual(['./p/a%20%231.png', undefined, url, './p/none.png']);
  await writeFile(join(folder, 'c.failed.csv'), 'id,title,image,error_code,error,attempts,message_id\n');
  expect(await report(output, { embed: true })).toMatchObject({ missing: 2 });
  const few = await runCommand(['report', output, '--embed', '--allow-private', '-o', 'web.html'], {
    cwd: folder,
  });
  expect(few.stdout).toMatch(/4 described and 0 failed; 1 pictures? could not be had/);
  expect((await dataOf('web.html')).described.rows[2]?.thumb).toMatch(/^data:image\/jpeg;base64,/);
  const [first, ...others] = (await dataOf('c.report.html')).described.rows;
  const bytes = Buffer.from(first?.thumb?.replace(/^data:image\/jpeg;base64,/, '') ?? '', 'base64');
  expect(await sharp(bytes).metadata()).toMatchObject({ format: 'jpeg', width: 160 });
  expect(others.map(({ thumb }) => thumb)).toEqual([undefined, undefined, undefined]);
});

describe.skipIf(!chromiumAvailable)('the report in a browser that is offline', () => {
  let browser: TestBrowser;
  beforeAll(async () => {
    browser = await startBrowser({ colorScheme: 'dark', width: 390, height: 800 });
    await browser.context.setOffline(true);
  });
  afterAll(() => browser.close());

  test(
    'searches, filters, sorts and turns pages, fits a phone and shows all as text',
    { timeout: 60_000 },
    async () => {
      const name = '</script><img src=x onerror=window.hacked=9>'.replaceAll('/', '_');
      const picture = sharp({ create: { width: 90, height: 30, channels: 3, background: 'red' } });
      await picture.png().toFile(join(folder, 'seen.png'));
      const images = Array.from({ length: 119 }, () => HOSTILE[1] ?? '');
      const about = { run: RUN, images: [...images, 'seen.png'], imageRoot: folder };
      const { path } = await report(await writeResults(folder, `${name}.csv`, about));
      const page = await browser.context.newPage();
      await page.goto(pathToFileURL(path).href);
      await page.getByText('1 to 50 of 120').waitFor();
      await page.waitForFunction('document.querySelector(".thumb img").naturalWidth === 90');
      await page.keyboard.press('n');
      await page.getByText('51 to 100 of 120').waitFor();
      await page.goBack();
      await page.getByText('1 to 50 of 120').waitFor();
      await page.keyboard.press('/');
      await page.keyboard.type('times (1) </SCRIPT>');
      // As it is typed.
      await page.getByText('1 to 3 of 3').waitFor();
      const first = page.locator('.image').first();
      expect(await first.innerText()).toContain(HOSTILE[0]);
      await page.getByLabel('Order').selectOption('as written');
      await page.getByText('Title 40').first().waitFor();
      await page.getByLabel('Search').fill('');
      await page.getByRole('link', { name: 'invalid-url' }).click();
      await page.getByText('1 to 1 of 1').waitFor();
      expect(await first.innerText()).toContain(HOSTILE[0]);
      await first.locator('summary').click();
      await page.locator('.cells').getByText('f2').waitFor();
      expect(await page.evaluate('[window.hacked, document.documentElement.scrollWidth]')).toEqual([
        undefined,
        390,
      ]);
      expect(await seriousTroubles(page)).toEqual([]);
      const anchors = await page.locator('a').all();
      const links = await Promise.all(anchors.map(async (a) => (await a.getAttribute('href')) ?? ''));
      expect(links.filter((link) => !/^(https?:\/\/|#)/.test(link))).toEqual([]);
    },
  );
});
