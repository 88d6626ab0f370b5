import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { runCommand } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

const receiptSchema = z.object({ described: z.number(), resumed: z.number(), remaining: z.number() });
const planSchema = z.strictObject({
  manifest: z.string(),
  output: z.string(),
  urlColumn: z.string(),
  rows: z.number(),
  images: z.number(),
  described: z.number(),
  toCopy: z.number(),
  failedBefore: z.number(),
  left: z.number(),
  badUrls: z.number(),
  badRecords: z.number(),
  duplicateKeys: z.number(),
  emptyRecords: z.number(),
  hasChanged: z.boolean(),
  isComplete: z.boolean(),
  submits: z.number(),
  polls: z.number(),
  cost: z.number().optional(),
  rate: z.string(),
  maxInFlight: z.number(),
  answerSeconds: z.number(),
  isAnswerMeasured: z.boolean(),
  seconds: z.number(),
  end: z.iso.datetime(),
  expiring: z.object({
    images: z.number(),
    first: z.object({ row: z.number(), at: z.iso.datetime() }).optional(),
  }),
  finishBy: z.object({ at: z.iso.datetime(), images: z.number() }).optional(),
  checked: z
    .object({
      images: z.number(),
      bad: z.record(z.string(), z.object({ images: z.number(), first: z.object({ row: z.number() }) })),
      list: z.array(z.object({ kind: z.string(), row: z.number(), url: z.string(), reason: z.string() })),
    })
    .optional(),
});

describeOnRedis('bulk-describe plan', (openQueue) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;

  beforeAll(async () => {
    queue = await openQueue();
  });
  afterAll(() => queue.cleanup());
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 50 });
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });

  const cli = (...args: string[]) => {
    const limits = ['--rate', '200/s', '--poll-rate', '400/s', '--max-in-flight', '20'];
    return runCommand([...args, '--api', simulator.url, '--queue', queue.url, ...limits], {
      cwd: workspace.path,
      env: { DESCRIBE_API_TOKEN: 'any' },
    });
  };
  const run = async (...args: string[]) => {
    const end = await cli('run', 'm.csv', '--json', '--quiet', ...args);
    return { ...end, receipt: receiptSchema.parse(JSON.parse(end.stdout)) };
  };
  const plan = async (...args: string[]) => {
    const end = await cli('plan', 'm.csv', '--json', ...args);
    return { ...end, plan: planSchema.parse(JSON.parse(end.stdout)) };
  };

  test('says on stdout what run would do, with its flags, and does nothing of it', async () => {
    await workspace.write('m.csv', `${manifestOf(100)}101,http://images.test/1.jpg\n102,\n`);
    const { code, stdout, stderr } = await cli('plan', 'm.csv', '--price', '0.5');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^manifest {2}m\.csv: 102 rows, 100 images, 1 to copy, 1 without or with a bad URL$/m,
    );
    expect(stdout).toMatch(/^cost {6}about 50\.00$/m);
    // With 20 in flight and 30 s an answer the rate is no matter.
    expect(stdout).toMatch(
      /^to do {5}100 images to submit, at most 200\/s, 20 in flight, 30 s an answer \(assumed\): about 3 min, until/m,
    );
    expect(stdout).toMatch(/^calls {5}100 submits, about 300 polls$/m);
    expect(await workspace.files()).toEqual(['m.csv']);
    expect(simulator.stats().submits).toBe(0);
  });

  test('keeps every character of a name in its JSON', async () => {
    await workspace.write('m.csv', 'image\u0085\nhttp://images.test/1.jpg\n');
    expect((await plan()).plan.urlColumn).toBe('image\u0085');
  });

  test('is refused where run is: for images of this machine at an API that takes URLs alone', async () => {
    await workspace.write('photo.png', 'x');
    await workspace.write('local.csv', 'url\nphoto.png\n');
    for (const command of [['plan'], ['run', '--dry-run'], ['run']]) {
      const { code, stderr } = await runCommand([...command, 'local.csv', '--api', 'simulator'], {
        cwd: workspace.path,
      });
      expect([command, code, stderr.split('\n').length]).toEqual([command, 1, 2]);
      expect(stderr).toContain('the images are on this machine: the dialect thenextleg takes URLs alone');
    }
  });

  test('--sample pays for images that are always the same, and for more of them with a larger one', async () => {
    await workspace.write('m.csv', manifestOf(40));
    const first = await run('--sample', '5');
    expect([first.code, first.receipt]).toEqual([0, { described: 5, resumed: 0, remaining: 35 }]);
    const sampled = new Set(simulator.stats().paidByUrl.keys());
    expect(sampled.size).toBe(5);
    // Not the first ones.
    expect([...sampled].sort()).not.toEqual([1, 2, 3, 4, 5].map((id) => `http://images.test/${id}.jpg`));
    expect((await run('--sample', '5')).receipt).toEqual({ described: 0, resumed: 5, remaining: 35 });
    expect((await plan('--sample', '8')).plan).toMatchObject({ submits: 3, described: 5, left: 32 });
    expect((await run('--sample', '8')).receipt).toEqual({ described: 3, resumed: 5, remaining: 32 });
    expect(simulator.stats().paid).toBe(8);
    const { stdout } = await cli('run', 'm.csv', '--sample', '8');
    expect(stdout).toMatch(
      /^rest {6}32 rows not taken on by this run \(--sample\): a larger one, or none, goes on$/m,
    );
    expect(stdout).not.toMatch(/^resume/m);
    const piped = await runCommand(['plan', '-', '--format', 'csv', '-o', 'o.csv', '--sample', '3'], {
      cwd: workspace.path,
      input: manifestOf(5),
    });
    expect([piped.code, piped.stdout]).toEqual([1, '']);
    expect(piped.stderr).toMatch(
      /--sample 3: .*can be read only once: save it as a file first, or use --limit\n$/,
    );
  });

  test('--finish-by ends a run in order at that time, and the same command goes on with the rest', async () => {
    await workspace.write('m.csv', manifestOf(60));
    const rate = ['--rate', '10/s'];
    const args = (at: number) => ['--finish-by', new Date(at).toISOString()];
    const end = await runCommand(
      [
        'run',
        'm.csv',
        '--json',
        '--api',
        simulator.url,
        '--queue',
        queue.url,
        ...rate,
        ...args(Date.now() + 4000),
      ],
      { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } },
    );
    expect(end.code).toBe(4);
    expect(end.stderr).toMatch(
      /^end {7}about \d+ of them by .*, when it stops; the next start goes on with the others$/m,
    );
    expect(end.stderr).toMatch(/^stopped: it is \d\d:\d\d, by which it was to end \(--finish-by\)$/m);
    const receipt = receiptSchema.parse(JSON.parse(end.stdout));
    expect(receipt.remaining).toBeGreaterThan(0);
    const rest = await run('--finish-by', new Date(Date.now() + 600_000).toISOString());
    expect([rest.code, rest.receipt]).toEqual([
      0,
      { described: 60 - receipt.described, resumed: receipt.described, remaining: 0 },
    ]);
    expect(simulator.stats().paid).toBe(60);
  });

  test('says which signed URLs expire before their turn', async () => {
    const until = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;
    const urls = [until(3600), until(3600), until(-60), until(3600)];
    const lines = urls.map((at, index) => `${index},http://i.test/${index}.jpg?Expires=${at}&Signature=0\n`);
    await workspace.write('m.csv', `id,image\n${lines.join('')}`);
    expect((await plan()).plan.expiring).toMatchObject({ images: 1, first: { row: 3 } });
    const { stdout } = await cli('plan', 'm.csv');
    expect(stdout).toMatch(/1 signed URL will have expired when it is their turn, the first in row 3 at/);
  });

  test('--check-urls asks the hosts, and says what is wrong with which image', async () => {
    const asked: string[] = [];
    const host = createServer(({ url = '', method = '' }, response) => {
      asked.push(`${method} ${url}`);
      if (url === '/dead.jpg') response.writeHead(404).end();
      else if (url === '/page.jpg') response.writeHead(200, { 'content-type': 'text/html' }).end('a page');
      else if (url === '/large.jpg')
        response.writeHead(200, { 'content-type': 'image/jpeg', 'content-length': 1e9 }).end();
      else if (url === '/get.jpg' && method === 'HEAD') response.writeHead(405).end();
      else if (url === '/moved.jpg') response.writeHead(302, { location: '/good.jpg' }).end();
      else if (url === '/broken.jpg') response.destroy();
      else response.writeHead(200, { 'content-type': 'image/jpeg' }).end('x');
    });
    await new Promise<void>((resolve) => host.listen(0, '127.0.0.1', resolve));
    const address: AddressInfo | string | null = host.address();
    const base = `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : ''}`;
    try {
      const names = ['good', 'dead', 'page', 'large', 'get', 'moved', 'broken'];
      await workspace.write('m.csv', `image\n${names.map((name) => `${base}/${name}.jpg\n`).join('')}`);
      const found = await plan('--check-urls', '--allow-private');
      expect(found.code).toBe(2);
      expect(found.plan.checked?.images).toBe(7);
      const kinds = found.plan.checked?.list.map(({ row, kind }) => [row, kind]);
      expect(kinds).toEqual([
        [2, 'dead'],
        [3, 'not-an-image'],
        [4, 'too-large'],
        [7, 'no-answer'],
      ]);
      expect(found.stderr).toMatch(/looking for 7 images at their hosts/);
      expect(asked).toContain('GET /get.jpg');
      expect(asked).not.toContain('GET /good.jpg');
      const guarded = await cli('plan', 'm.csv', '--check-urls', '--sample', '2');
      expect(guarded.code).toBe(2);
      expect(guarded.stdout).toMatch(
        /^checked {3}2 images\n {10}2 private, the first in row \d: http:\/\/127\.0\.0\.1/m,
      );
      await workspace.write('m.csv', `image\n${base}/good.jpg\n`);
      const good = await cli('plan', 'm.csv', '--check-urls', '--allow-private');
      expect([good.code, good.stdout]).toEqual([
        0,
        expect.stringMatching(/^checked {3}1 image: all can be had$/m),
      ]);
    } finally {
      host.close();
    }
  });
});
