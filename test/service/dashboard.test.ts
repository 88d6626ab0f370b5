import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { RUNS } from '../../src/shared/published.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import {
  type BrowserOptions,
  type TestBrowser,
  chromiumAvailable,
  startBrowser,
} from '../helpers/browser.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { acts, startScriptedApi } from '../reliability/scripted-api.js';
import { Service, untilSaid } from './service.js';

const PASSWORD = { DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: 'lovelace' };
const CREDENTIALS = { username: 'ada', password: 'lovelace' };

describe.skipIf(!redisAvailable || !chromiumAvailable)('the dashboard in a browser', () => {
  let redis: TestRedis;
  let database = 0;
  let queue: string;
  let workspace: Workspace;
  let simulator: Simulator;
  let service: Service;
  const browsers: TestBrowser[] = [];

  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.stop());
  beforeEach(async () => {
    queue = `${redis.url}/${database++}`;
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 200 });
    service = new Service(workspace, queue);
  });
  afterEach(async () => {
    for (const browser of browsers.splice(0)) await browser.close();
    await service.end();
    await simulator.close();
    await workspace.remove();
  });

  async function open(options: BrowserOptions = {}): Promise<Page> {
    const browser = await startBrowser(options);
    browsers.push(browser);
    return browser.context.newPage();
  }

  async function startDashboard(env: NodeJS.ProcessEnv = {}): Promise<string> {
    const started = service.start('dashboard', ['--port', '0'], env);
    await waitUntil('the URL of the dashboard', () => started.stdout().includes('\n'));
    return started.stdout().trim();
  }

  test(
    'lets nobody in without the password, and with it shows a failed image, takes it up again and brings its row',
    { timeout: 150_000 },
    async () => {
      simulator.setOptions({ failures: { reject: 0.3 } });
      await workspace.write('m.csv', manifestOf(24));
      const limits = ['--rate', '3/s', '--api', simulator.url];
      const server = service.start('serve', ['--work', ...limits]);
      await untilSaid(server, /takes runs from/);
      const enqueue = ['m.csv', '-o', 'out.csv', '--stop-failing', '100'];
      expect((await service.start('enqueue', enqueue).ended).code).toBe(0);
      const url = await startDashboard(PASSWORD);

      const stranger = await open();
      expect((await stranger.goto(`${url}/runs`).catch(() => null))?.status() ?? 401).toBe(401);
      expect((await fetch(`${url}/board/api/queues`)).status).toBe(401);
      expect((await fetch(`${url}/metrics`)).status).toBe(401);

      // Not this machine's own name: a browser then says less of where a form comes from.
      const far = 'http://dashboard.test';
      const page = await open({
        credentials: CREDENTIALS,
        hosts: { 'dashboard.test': new URL(url).host },
      });
      await page.goto(`${far}/runs`);
      await page.getByRole('link', { name: 'out.csv' }).click();
      // The page keeps itself fresh: nothing is loaded anew by hand.
      const failure = page.locator('tr[data-key]').last();
      await failure.waitFor({ timeout: 60_000 });
      await page.locator('.image').first().waitFor({ timeout: 60_000 });
      await page.getByText('done, some failed').waitFor({ timeout: 60_000 });
      await untilSaid(server, /has ended with exit code 2/);
      const image = (await failure.getByRole('link').first().textContent()) ?? '';
      expect(await failure.textContent()).toContain('rejected');
      const id = image.replace('.jpg', '');
      const runPage = page.url();
      await failure.locator('summary').click();
      expect(await failure.innerText()).toMatch(/The API refuses this image[\s\S]*taken by a worker on/);
      const described = async () => (await workspace.records('out.csv')).map((record) => record['id']);
      expect(await described()).not.toContain(id);

      simulator.setOptions({ failures: {} });
      await failure.getByRole('link', { name: /^row/ }).click();
      await page.getByText(`${image}, row `).first().waitFor();
      const link = await page.getByRole('link', { name: 'image' }).getAttribute('href');
      expect(link).toBe(`http://images.test/${image}`);
      // Nothing is offered on the board that would be refused.
      const board = page.url().slice(0, page.url().lastIndexOf('/'));
      for (const address of [
        page.url(),
        `${board}?status=failed`,
        `${board}?status=completed`,
        `${far}/board`,
      ]) {
        await page.goto(address);
        await page.waitForLoadState('networkidle');
        await page
          .getByText(/row \d+|jobs/i)
          .first()
          .waitFor();
        const refused = page.getByRole('button', {
          name: /retry|remove|clean|promote|pause|empty|add|edit/i,
        });
        expect(await refused.or(page.locator('button:has(svg.lucide-refresh-cw)')).count(), address).toBe(0);
      }
      await page.goto(runPage);
      // A refusal is not tried again by itself: it is this button that puts the image back.
      await failure.getByRole('button', { name: 'Retry' }).click();
      await page.getByRole('status').getByText('taken up again').waitFor();
      // The server that executed the run brings the row, though the run is long over; nobody starts anything.
      await waitUntil(`the row of ${image}`, async () => (await described()).includes(id));
      await untilSaid(
        server,
        /has ended with exit code [02]: [\s\S]*has ended with exit code [02]: 1 described/,
      );
      expect(simulator.stats().paidByUrl.get(`http://images.test/${image}`)).toBe(1);
      await page.goto(`${far}/runs`);
      await page.getByRole('link', { name: 'out.csv' }).click();
      await page.locator('.image').getByText(image, { exact: true }).waitFor();
      expect(await page.locator('tr[data-key]').getByText(image, { exact: true }).count()).toBe(0);
    },
  );

  test(
    'shows scripts, quotes and control characters as text, on every page',
    { timeout: 150_000 },
    async () => {
      const evil = `<script>window.hacked='p'</script><img src=x onerror="window.hacked='i'"> "quoted" 'single' \u001b[31m\u0007 \u202eabc`;
      const api = await startScriptedApi({
        submit: (image) =>
          image.includes('refused') ? acts.answer(400, { success: false, msg: evil }) : undefined,
        poll: () => acts.answer(200, { progress: 100, content: [evil, evil, evil, evil], type: 'describe' }),
      });
      const name = `<img src=x onerror=window.hacked=1>"'&.csv`;
      const path = encodeURIComponent(`<script>window.hacked='u'<\u001b"'>.jpg`);
      const urls = [
        `http://images.test/${path}?a="><script>window.hacked=2</script>&b='`,
        `http://images.test/refused-${path}`,
        "javascript:window.hacked='j'",
      ];
      const cells = urls.map((url) => `"${url.replaceAll('"', '""')}"`);
      await workspace.write('m.csv', `title,image\n${cells.map((cell) => `"<b>t</b>",${cell}\n`).join('')}`);
      try {
        const run = service.start('run', [
          'm.csv',
          '-o',
          name,
          '--api',
          api.url,
          '--rate',
          '10/s',
          '--stop-failing',
          '100',
        ]);
        await run.ended;
        const url = await startDashboard();
        const connection = await openQueue(parseQueueUrl(queue, {}));
        const [status] = await RUNS.list(connection.store);
        await connection.close();
        expect(status).toMatchObject({ described: 1, failed: 2 });
        const page = await open();
        const board = `${url}/board/queue/${encodeURIComponent(status?.queueName ?? '')}`;
        const pages = ['/runs', `/runs/${status?.run ?? ''}`, '/metrics'].map((at) => `${url}${at}`);
        for (const address of [...pages, `${board}?status=completed`, `${board}?status=failed`]) {
          await page.goto(address);
          const isBoard = address.startsWith(board);
          if (isBoard) await page.getByText(', row ').first().waitFor();
          for (const tab of isBoard ? ['Data', 'Logs', 'Error'] : []) {
            await page.getByRole('tab', { name: tab, exact: true }).first().click();
            await page.waitForLoadState('networkidle');
          }
          const text = await page.locator('body').innerText();
          if (address === `${url}/runs`) expect(text).toContain(name);
          else if (address !== `${url}/metrics`)
            expect(text, address).toContain("<script>window.hacked='u'<␛");
          expect(await page.evaluate('window.hacked'), address).toBeUndefined();
          const anchors = await page.locator('a').all();
          const links = await Promise.all(anchors.map(async (a) => (await a.getAttribute('href')) ?? ''));
          expect(
            links.filter((link) => !/^(https?:\/\/|\/|#|$)/.test(link)),
            address,
          ).toEqual([]);
        }
        await page.goto(`${url}/runs/${status?.run ?? ''}`);
        expect(await page.locator('main').innerText()).toContain('<b>t</b>');
        const prompts = await page.locator('ol.prompts li').allInnerTexts();
        expect(prompts).toHaveLength(4);
        expect(prompts[0]).toContain(
          `<script>window.hacked='p'</script><img src=x onerror="window.hacked='i'">`,
        );
        expect(prompts[0]).toContain('␛[31m␇ �abc');
      } finally {
        await api.close();
      }
    },
  );
});
