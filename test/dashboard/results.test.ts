import { existsSync } from 'node:fs';
import { appendFile, copyFile, mkdir, readdir, readlink, realpath, rename, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { z } from 'zod';
import { startDashboard } from '../../src/dashboard/dashboard.js';
import { RootFolder } from '../../src/service/root-folder.js';
import { RUNS } from '../../src/shared/published.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RowIndex } from '../../src/writer/row-index.js';
import { type TestBrowser, chromiumAvailable, seriousTroubles, startBrowser } from '../helpers/browser.js';
import { type QueueFixture, embeddedFixture } from '../helpers/queues.js';
import { HOSTILE, writeResults } from '../helpers/results-fixture.js';
import { Workspace } from '../helpers/workspace.js';

let queue: QueueFixture;
let connection: QueueConnection;
let workspace: Workspace;
let root: string;
let runs = 0;

beforeAll(async () => {
  queue = await embeddedFixture();
  connection = await queue.connect();
  workspace = await Workspace.create();
  root = join(await realpath(workspace.path), 'root');
  await mkdir(root);
});
afterAll(async () => {
  await workspace.remove();
  await queue.cleanup();
});

const dataSchema = z.object({
  searched: z.number().optional(),
  described: z.object({
    rows: z.array(z.object({ n: z.number(), thumb: z.string().optional() })),
    total: z.number(),
  }),
  failed: z.object({ rows: z.array(z.object({ code: z.string() })), total: z.number() }),
});

const newRun = () => `r${String(runs++).padStart(11, '0')}`;

async function publish(run: string, output: string) {
  const about = { run, account: 'h.test:openai:default', queueName: 'describe@h', manifest: 'm.csv', output };
  const counts = { rows: 1, described: 0, resumed: 0, copied: 0, failed: 0, perSecond: 0 };
  const now = Date.now();
  await RUNS.publish(connection.store, run, {
    ...{ ...about, ...counts, host: 'h', pid: 1, startedAt: now, seenAt: now },
  });
}

async function open() {
  const folder = await RootFolder.open(root);
  const mayRead = (output: string) => folder.output(output);
  const dashboard = await startDashboard(connection, { port: 0, mayRead, imageRoots: [root] });
  onTestFinished(() => dashboard.close());
  return dashboard.url;
}

const textOf = async (url: string) => (await fetch(url)).text();
/** What a page has for its script. While a busy machine still searches, it is asked for again, as the page does itself. */
async function dataOf(url: string) {
  for (;;) {
    const json = /id="data">(.*?)<\/script>/.exec(await textOf(url))?.[1] ?? '';
    const data = dataSchema.parse(JSON.parse(json));
    if (data.searched === undefined) return data;
  }
}

describe('the results of a run', () => {
  test('are read from outputs of each format, also while they grow and when they are replaced', async () => {
    const url = await open();
    for (const ending of ['csv', 'jsonl', 'parquet']) {
      const run = newRun();
      const output = await writeResults(root, `out.${ending}`, { run });
      await publish(run, output);
      const page = (query: string) => dataOf(`${url}/runs/${run}/results?${query}`);
      const first = await page('');
      expect([first.described.total, first.described.rows.map(({ n }) => n)]).toEqual([
        120,
        Array.from({ length: 50 }, (_, at) => 120 - at),
      ]);
      expect((await page('q=x&q=y&code=a&code=b&sort=a&sort=b&page=1&page=2')).described.total).toBe(120);
      expect((await page('page=3&sort=written')).described.rows.map(({ n }) => n)).toEqual(
        Array.from({ length: 20 }, (_, at) => 101 + at),
      );
      const found = await page(`q=${encodeURIComponent('harbour, PAINTED 77')}`);
      expect(found.described).toMatchObject({ total: 1, rows: [{ n: 77 }] });
      expect((await page('code=rejected')).failed).toMatchObject({
        total: 2,
        rows: [{ code: 'rejected' }, {}],
      });
      expect((await page('code=all&q=said+NO')).failed.total).toBe(1);
      if (ending === 'parquet') continue;
      const lines = (await workspace.read(`root/out.${ending}`)).split('\n');
      await appendFile(output, `${lines.at(-2) ?? ''}\n`);
      expect((await page('')).described.total).toBe(121);
      expect((await page('q=painted+120')).described.total).toBe(2);
      await writeResults(root, `new.${ending}`, { run, rows: 130 });
      await rename(join(root, `new.${ending}`), output);
      expect((await page('q=painted+120')).described.total).toBe(1);
      const file = await fetch(`${url}/runs/${run}/results/file`);
      expect(file.headers.get('content-disposition')).toContain(`out.${ending}`);
      expect(await file.text()).toBe(await workspace.read(`root/out.${ending}`));
    }
  });

  test('are shown of the run alone whose they are, and from nowhere else', async () => {
    const url = await open();
    const outside = await writeResults(workspace.path, 'outside.csv', { run: newRun() });
    const stolen = newRun();
    await writeResults(workspace.path, 'secret.csv', { run: stolen });
    await symlink(join(workspace.path, 'secret.csv'), join(root, 'link.csv'));
    await copyFile(join(workspace.path, 'secret.csv.run'), join(root, 'link.csv.run'));
    const linked = await writeResults(root, 'linked.csv', { run: stolen });
    const foreign = newRun();
    const cases: [run: string, output: string, why: RegExp][] = [
      [newRun(), outside, /leads out of the server&#39;s folder/],
      [newRun(), `${root}/../outside.csv`, /leads out of/],
      [newRun(), '/etc/passwd', /leads out of/],
      [stolen, join(root, 'link.csv'), /leads out of/],
      [foreign, linked, /belongs to another run now/],
      [newRun(), join(root, 'gone.csv'), /there is no output/],
    ];
    for (const [run, output, why] of cases) {
      await publish(run, output);
      const page = await fetch(`${url}/runs/${run}/results`);
      expect([output, page.status, why.test(await page.text())]).toEqual([output, 404, true]);
      for (const path of ['file', 'image?row=0'])
        expect([output, (await fetch(`${url}/runs/${run}/results/${path}`)).status]).toEqual([output, 404]);
    }
    const closed = await startDashboard(connection, { port: 0 });
    onTestFinished(() => closed.close());
    await publish(stolen, linked);
    expect(await textOf(`${closed.url}/runs/${stolen}/results`)).toContain('dashboard --root');
    expect(await textOf(`${url}/runs/${stolen}/results`)).toContain('id="data"');
  });

  test('are not looked for where nobody waits any more, and hold no file open', async () => {
    const url = await open();
    const run = newRun();
    const output = await writeResults(root, 'asked.csv', { run });
    await publish(run, output);
    const openFiles = async () => {
      const files = await readdir('/proc/self/fd');
      const paths = files.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
      return (await Promise.all(paths)).filter((path) => path === output).length;
    };
    let release: () => void = () => undefined;
    const search = vi.spyOn(RowIndex.prototype, 'search');
    search.mockImplementationOnce(() => new Promise((resolve) => (release = () => resolve([]))));
    onTestFinished(() => search.mockRestore());
    const ask = (text: string) => textOf(`${url}/runs/${run}/results?q=${text}`);
    const pages = await Promise.all(['a', 'b', 'c', 'd'].map(ask));
    expect(pages.map((page) => /"searched":\d/.test(page))).toEqual([true, true, true, true]);
    if (existsSync('/proc/self/fd')) expect(await openFiles()).toBe(1);
    release();
    expect((await dataOf(`${url}/runs/${run}/results?q=painted+77`)).described.total).toBe(1);
    expect(search).toHaveBeenCalledTimes(2);
    if (existsSync('/proc/self/fd')) expect(await openFiles()).toBe(0);
  });

  test('have small pictures of images on this machine', async () => {
    const url = await open();
    const picture = sharp({ create: { width: 900, height: 300, channels: 3, background: 'red' } });
    await picture.png().toFile(join(root, 'a #1.png'));
    const run = newRun();
    const images = ['a #1.png', '/etc/passwd', 'https://i.test/b.jpg'];
    await publish(run, await writeResults(root, 'local.csv', { run, rows: 3, images, imageRoot: root }));
    const { described } = await dataOf(`${url}/runs/${run}/results?sort=written`);
    expect(described.rows.map(({ thumb }) => thumb)).toEqual([
      `/runs/${run}/results/image?row=0`,
      undefined,
      'https://i.test/b.jpg',
    ]);
    const shown = await fetch(`${url}/runs/${run}/results/image?row=0`);
    expect([shown.status, shown.headers.get('content-type')]).toEqual([200, 'image/jpeg']);
    for (const row of [1, 2, 3, -1])
      expect([row, (await fetch(`${url}/runs/${run}/results/image?row=${row}`)).status]).toEqual([row, 404]);
  });
});

describe.skipIf(!chromiumAvailable)('the page of results in a browser', () => {
  let browser: TestBrowser;
  let page: Page;
  beforeAll(async () => {
    browser = await startBrowser({ colorScheme: 'dark', width: 390, height: 800 });
    page = await browser.context.newPage();
  });
  afterAll(() => browser.close());

  test(
    'searches, filters, sorts and turns pages, by keys too, fits a phone and shows all as text',
    { timeout: 60_000 },
    async () => {
      const url = await open();
      const run = newRun();
      await publish(run, await writeResults(root, 'seen.jsonl', { run }));
      await page.goto(`${url}/runs/${run}`);
      await page.getByRole('link', { name: 'All results' }).click();
      const first = page.locator('.image').first();
      await page.getByText('1 to 50 of 120').waitFor();
      await page.keyboard.press('n');
      await page.getByText('51 to 100 of 120').waitFor();
      expect(await first.innerText()).toContain('Title 70');
      await page.keyboard.press('ArrowRight');
      await page.getByText('101 to 120 of 120').waitFor();
      await page.keyboard.press('p');
      await page.getByText('51 to 100 of 120').waitFor();
      await page.keyboard.press('/');
      await page.keyboard.type('times (1) </SCRIPT>');
      await page.keyboard.press('Enter');
      await page.getByText('1 to 3 of 3').waitFor();
      expect(new URL(page.url()).searchParams.get('q')).toBe('times (1) </SCRIPT>');
      expect(await first.innerText()).toContain(HOSTILE[0]);
      await page.getByLabel('Order').selectOption('as written');
      await page.getByText('Title 40').first().waitFor();
      await page.goBack();
      await page.getByText('Title 120').first().waitFor();
      await page.getByLabel('Search').fill('');
      await page.getByLabel('Rows').selectOption('failed: rejected (2)');
      await page.getByText('1 to 2 of 2').waitFor();
      await page.getByLabel('Rows').selectOption('failed: all (3)');
      await page.getByText('1 to 3 of 3').waitFor();
      expect(await page.locator('.image').nth(1).innerText()).toContain(HOSTILE[0]);
      await page.locator('.image summary').nth(1).click();
      await page.locator('.cells').getByText('f2').waitFor();
      expect(await page.evaluate('[window.hacked, document.documentElement.scrollWidth]')).toEqual([
        undefined,
        390,
      ]);
      expect(await seriousTroubles(page)).toEqual([]);
      const anchors = await page.locator('a').all();
      const links = await Promise.all(anchors.map(async (a) => (await a.getAttribute('href')) ?? ''));
      expect(links.filter((link) => !/^(https?:\/\/|\/|\?)/.test(link))).toEqual([]);
    },
  );
});
