import { createHash } from 'node:crypto';
import { cp, mkdir } from 'node:fs/promises';
import { type AddressInfo, type Server } from 'node:net';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startDashboard } from '../../src/dashboard/dashboard.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { startSimulator } from '../helpers/simulator.js';
import { type BrowserOptions, chromiumAvailable, startBrowser } from '../helpers/browser.js';
import { redisAvailable, startRedis } from '../helpers/redis.js';
import { Workspace } from '../helpers/workspace.js';

/** Where the pictures of the documents go: `BULK_DESCRIBE_SCREENSHOTS=docs/images npx vitest run test/service/screenshots.test.ts`. */
const FOLDER = process.env['BULK_DESCRIBE_SCREENSHOTS'] ?? '';
const IMAGES_HOST = 'www.tate.org.uk';

test.skipIf(FOLDER === '' || !redisAvailable || !chromiumAvailable)(
  'takes the pictures of the documents from a run of the examples',
  { timeout: 180_000 },
  async () => {
    const redis = await startRedis();
    const workspace = await Workspace.create();
    const images = await startImageServer();
    const simulator = await startSimulator({ port: 8080, latencyMs: 3000, failures: { reject: 0.1 } });
    await cp('examples/paintings.csv', workspace.at('paintings.csv'));
    await mkdir(FOLDER, { recursive: true });
    let pictures: Promise<void> | undefined;
    const companion = async (connection: QueueConnection) => {
      const dashboard = await startDashboard(connection, { port: 0 });
      pictures = takePictures(dashboard.url, { hosts: { [IMAGES_HOST]: `127.0.0.1:${images.port}` } });
      pictures.catch(() => undefined);
      return async () => {
        await pictures?.catch(() => undefined);
        await dashboard.close();
      };
    };
    try {
      await describeManifest({
        manifest: workspace.at('paintings.csv'),
        api: simulator.url,
        token: 'any',
        queue: redis.url,
        limits: { rate: { count: 1, perMs: 1000 } },
        stopFailing: 100,
        companions: [companion],
      });
      await pictures;
      expect(pictures).toBeDefined();
    } finally {
      await simulator.close();
      images.server.close();
      await workspace.remove();
      await redis.stop();
    }
  },
);

async function takePictures(url: string, options: BrowserOptions): Promise<void> {
  const browser = await startBrowser({ ...options, width: 1280, height: 1250 });
  try {
    const page = await browser.context.newPage();
    await page.goto(`${url}/runs`);
    await page.getByRole('link', { name: 'paintings.prompts.csv' }).click({ timeout: 30_000 });
    await page.locator('.image').nth(9).waitFor({ timeout: 60_000 });
    await page.locator('tr[data-key]').first().waitFor({ timeout: 60_000 });
    await page.waitForLoadState('networkidle');
    await page.screenshot({ path: join(FOLDER, 'run-page.png') });
    const job = (await page.locator('.image a.soft').nth(3).getAttribute('href')) ?? '';
    const queue = job.slice(0, job.lastIndexOf('/'));
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.goto(`${url}${queue}?status=completed`);
    await page.getByText('--ar ').nth(3).waitFor({ timeout: 15_000 });
    await page.waitForLoadState('networkidle');
    await page.screenshot({ path: join(FOLDER, 'board.png') });
  } finally {
    await browser.close();
  }
}

/** Answers every path with a painting of its own, always the same. */
async function startImageServer(): Promise<{ readonly port: number; readonly server: Server }> {
  const server = createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'image/svg+xml', 'cache-control': 'max-age=3600' });
    response.end(painting(request.url ?? ''));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { port: address.port, server };
}

/** A landscape: sky, sun, three ranges of hills and water, in colours of the path's own. */
function painting(path: string): string {
  const bytes = createHash('sha256').update(path).digest();
  const draw = (i: number, from: number, to: number) => from + ((bytes[i] ?? 0) / 255) * (to - from);
  const hue = draw(0, 0, 360);
  const colour = (turn: number, saturation: number, light: number) =>
    `hsl(${Math.round((hue + turn) % 360)} ${saturation}% ${light}%)`;
  const hills = [0, 1, 2].map((range) => {
    const base = 150 + range * 35;
    const heights = [0, 1, 2, 3, 4, 5].map((i) => base - draw(1 + range * 6 + i, 0, 60));
    const line = heights.map((y, i) => `${i * 60},${y.toFixed(0)}`).join(' ');
    return `<polygon points="0,300 ${line} 300,300" fill="${colour(20 + range * 14, 32, 52 - range * 14)}"/>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 300" preserveAspectRatio="xMidYMid slice">
<defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="${colour(190, 45, 62)}"/><stop offset="1" stop-color="${colour(40, 70, 84)}"/></linearGradient></defs>
<rect width="300" height="300" fill="url(#sky)"/>
<circle cx="${draw(20, 60, 240).toFixed(0)}" cy="${draw(21, 50, 110).toFixed(0)}" r="${draw(22, 16, 30).toFixed(0)}" fill="${colour(50, 90, 92)}"/>
${hills.join('\n')}
<rect y="245" width="300" height="55" fill="${colour(200, 30, 38)}" opacity=".85"/></svg>`;
}
