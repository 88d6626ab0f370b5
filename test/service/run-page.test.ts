import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { startSimulator } from '../helpers/simulator.js';
import { chromiumAvailable, startBrowser } from '../helpers/browser.js';
import { redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';
import { Service, untilSaid } from './service.js';

const EVIL = `<img src=x onerror="window.hacked=1">"'&\u202e`;
const ROWS = 60;
const PHONE = { width: 360, height: 740 };

const seriousSchema = z.array(
  z.object({ impact: z.string().nullable(), id: z.string(), nodes: z.unknown() }),
);

/** What axe-core finds that is serious. */
async function seriousOf(page: Page): Promise<unknown[]> {
  await page.evaluate(await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'));
  const found = seriousSchema.parse(
    await page.evaluate(`axe.run(document.body, { resultTypes: ['violations'] }).then(({ violations }) =>
      violations.map(({ impact, id, nodes }) => ({ impact, id, nodes: nodes.map(({ html }) => html) })))`),
  );
  return found.filter(({ impact }) => impact === 'serious' || impact === 'critical');
}

/** Short words that are broken into two lines, and how much wider than the window the page is. */
function brokenWords(page: Page): Promise<unknown> {
  return page.evaluate(`(() => {
    const broken = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
      for (const { index, 0: word } of node.data.matchAll(/\\p{L}{2,14}/gu)) {
        const range = document.createRange();
        range.setStart(node, index);
        range.setEnd(node, index + word.length);
        if (new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size > 1) broken.push(word);
      }
    }
    return { broken, tooWide: Math.max(0, document.scrollingElement.scrollWidth - innerWidth) };
  })()`);
}

test.skipIf(!redisAvailable || !chromiumAvailable)(
  'the page of a run draws it while it goes on, filters its failures, cancels it and brings the rows of a retry',
  { timeout: 240_000 },
  async () => {
    const redis = await startRedis();
    const workspace = await Workspace.create();
    const simulator = await startSimulator({ latencyMs: 300, failures: { reject: 0.4 } });
    const service = new Service(workspace, redis.url);
    const browser = await startBrowser();
    try {
      const titles = Array.from({ length: ROWS }, (_, i) => `${i % 2 === 0 ? EVIL : 'A Boat'} ${i + 1}`);
      const rows = titles.map(
        (title, i) => `${i + 1},http://images.test/${i + 1}.jpg,"${title.replaceAll('"', '""')}"\n`,
      );
      await workspace.write('m.csv', `id,image,Title\n${rows.join('')}`);
      const server = service.start('serve', ['--work', '--rate', '4/s', '--api', simulator.url]);
      await untilSaid(server, /takes runs from/);
      const connection = await openQueue(parseQueueUrl(redis.url, {}));
      const asked = { manifest: EVIL, output: `${EVIL}.csv` };
      await connection.queue('runs').upsertJobScheduler(EVIL, { pattern: '0 3 1 1 *' }, { data: asked });
      await connection.close();
      const enqueue = ['m.csv', '-o', 'paintings.prompts.csv', '--stop-failing', '100', '--price', '0.25'];
      expect((await service.start('enqueue', enqueue).ended).code).toBe(0);
      const dashboard = service.start('dashboard', ['--port', '0']);
      await waitUntil('the URL of the dashboard', () => dashboard.stdout().includes('\n'));
      const url = dashboard.stdout().trim();

      const page = await browser.context.newPage();
      await page.goto(`${url}/runs`);
      expect(await page.locator('.card li').allInnerTexts()).toEqual(
        expect.arrayContaining([expect.stringMatching(/process \d+: working/)]),
      );
      const schedule = await page.locator('tr:has(th)').innerText();
      expect(schedule).toContain('<img src=x onerror=');
      expect(schedule).toMatch(/next in [\d.]+ (min|hours|days)\s+has not run yet/);
      await page.getByRole('link', { name: 'paintings.prompts.csv' }).click();
      const chart = page.getByRole('img', { name: /^Images a minute: \d+ described and [1-9]\d* failed/ });
      await chart.waitFor({ timeout: 60_000 });
      const drawn = await chart.locator('.described').getAttribute('d');
      await waitUntil(
        'a chart that moves',
        async () => (await chart.locator('.described').getAttribute('d')) !== drawn,
      );
      await page.getByRole('img', { name: /^Cost: [\d.]+ so far/ }).waitFor();
      await page.getByRole('img', { name: /^How long images take/ }).waitFor();
      await page.locator('.image').nth(2).waitFor();
      expect(await page.locator('.image .name').allInnerTexts()).toEqual(
        expect.arrayContaining([expect.stringContaining('A Boat')]),
      );

      await page.getByRole('link', { name: 'rejected', exact: true }).click();
      await page.locator('tr[data-key]').first().waitFor();
      await page.getByRole('heading', { name: /with rejected$/ }).waitFor();
      const key = (await page.locator('tr[data-key]').first().getAttribute('data-key')) ?? '';
      const failure = page.locator(`tr[data-key="${key}"]`);
      await failure.locator('summary').click();
      await page.waitForResponse((response) => response.url().includes('?code=rejected'));
      expect(await failure.innerText()).toMatch(
        /refuses this image[\s\S]*1 submitted[\s\S]*taken by a worker/,
      );

      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme });
        expect(await seriousOf(page), colorScheme).toEqual([]);
      }
      await page.setViewportSize(PHONE);
      expect(await brokenWords(page)).toEqual({ broken: [], tooWide: 0 });

      await page.getByRole('button', { name: 'Cancel the run' }).click();
      await page.getByRole('status').getByText('nothing more is submitted').waitFor();
      await page.getByText('cancelled', { exact: true }).waitFor();
      await untilSaid(server, /has ended with exit code 130/);
      const described = async () =>
        (await workspace.records('paintings.prompts.csv')).map(({ id }) => Number(id));
      const before = await described();
      simulator.setOptions({ failures: {} });
      const name = (await page.locator('tr[data-key] td').first().getByRole('link').innerText()).trim();
      await page.getByRole('button', { name: 'Retry failed rows' }).click();
      await page.getByRole('status').getByText('a server takes the failed rows').waitFor({ timeout: 30_000 });
      await waitUntil(`the row of ${name}`, async () => (await described()).includes(parseInt(name)));
      expect(before).not.toContain(parseInt(name));
      await page.locator('.image').getByText(name, { exact: true }).waitFor();

      await page.goto(`${url}/runs`);
      expect(await seriousOf(page)).toEqual([]);
      expect(await brokenWords(page)).toEqual({ broken: [], tooWide: 0 });
      await page.getByRole('button', { name: 'Pause' }).click();
      await page.getByRole('button', { name: 'Resume' }).click();
      await page.getByRole('button', { name: 'Pause' }).waitFor();
      expect(await page.evaluate('window.hacked')).toBeUndefined();
    } finally {
      await browser.close();
      await service.end();
      await simulator.close();
      await workspace.remove();
      await redis.stop();
    }
  },
);
