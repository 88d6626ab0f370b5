import { mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { startDashboard } from '../../src/dashboard/dashboard.js';
import { describeJobId } from '../../src/shared/jobs.js';
import { RUNS } from '../../src/shared/published.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { type QueueFixture, embeddedFixture } from '../helpers/queues.js';

const RUN = 'r00000000000';
const QUEUE = 'describe@h.test_openai_default';
const credentials = { user: 'ada', password: 'secret' };
const headers = { authorization: `Basic ${Buffer.from('ada:secret').toString('base64')}` };

describe('the small picture of a local image', () => {
  let queue: QueueFixture;
  let connection: QueueConnection;
  let folder: string;
  beforeAll(async () => {
    queue = await embeddedFixture();
    connection = await queue.connect();
    folder = await realpath(await mkdtemp(join(tmpdir(), 'bulk-describe-pictures-')));
    const about = {
      run: RUN,
      account: 'h.test:openai:default',
      queueName: QUEUE,
      manifest: 'm',
      output: 'o',
    };
    const counts = { rows: 1, described: 0, resumed: 0, copied: 0, failed: 0, perSecond: 0 };
    const now = Date.now();
    const process = { host: 'h', pid: 1, startedAt: now, seenAt: now };
    await RUNS.publish(connection.store, RUN, { ...about, ...counts, ...process });
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
    await queue.cleanup();
  });

  async function open(imageRoots?: readonly string[]) {
    const dashboard = await startDashboard(connection, { port: 0, credentials, imageRoots });
    onTestFinished(() => dashboard.close());
    return (image: string, options: RequestInit = { headers }) =>
      fetch(`${dashboard.url}/runs/${RUN}/images/${image}`, options);
  }

  async function addJob(image: string, url: string) {
    await connection.queue(QUEUE).add('describe', { url, row: 1 }, { jobId: describeJobId(RUN, image) });
  }

  test('is shown with the password, of what a job of the run names, and from within the folder alone', async () => {
    const picture = sharp({ create: { width: 900, height: 300, channels: 3, background: 'red' } });
    await picture.png().toFile(join(folder, 'a #1.png'));
    await addJob('good', pathToFileURL(join(folder, 'a #1.png')).href);
    await addJob('passwd', 'file:///etc/passwd');
    await addJob('web', 'https://i.test/a.jpg');
    await symlink('/etc/passwd', join(folder, 'link.png'));
    await addJob('link', pathToFileURL(join(folder, 'link.png')).href);
    const get = await open([folder]);
    const shown = await get('good');
    expect([shown.status, shown.headers.get('content-type')]).toEqual([200, 'image/jpeg']);
    const { format, width, height } = await sharp(await shown.arrayBuffer()).metadata();
    expect([format, width, height]).toEqual(['jpeg', 320, 107]);
    expect((await get('good', {})).status).toBe(401);
    for (const image of ['passwd', 'web', 'link', 'none', '..%2F..%2Fetc%2Fpasswd'])
      expect([image, (await get(image)).status]).toEqual([image, 404]);
    const withoutRoots = await open();
    expect((await withoutRoots('good')).status).toBe(404);
  });

  test('is none of a broken image, and of a huge one', async () => {
    await writeFile(join(folder, 'broken.jpg'), 'no image');
    await addJob('broken', pathToFileURL(join(folder, 'broken.jpg')).href);
    await writeFile(join(folder, 'large.jpg'), Buffer.alloc(20 * 1024 ** 2 + 1));
    await addJob('large', pathToFileURL(join(folder, 'large.jpg')).href);
    // A bomb: some bytes that would take gigabytes of memory.
    await writeFile(
      join(folder, 'bomb.svg'),
      '<svg xmlns="http://www.w3.org/2000/svg" width="30000" height="30000"/>',
    );
    await addJob('bomb', pathToFileURL(join(folder, 'bomb.svg')).href);
    const get = await open([folder]);
    for (const image of ['broken', 'large', 'bomb'])
      expect([image, (await get(image)).status]).toEqual([image, 404]);
  });
});
