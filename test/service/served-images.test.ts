import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import sharp from 'sharp';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UndoStack } from '../../src/shared/undo.js';
import { runCommand, startCli } from '../helpers/cli.js';
import { describeOnRedis } from '../helpers/queues.js';
import { freePort } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';
import { endOf, kill9 } from '../reliability/run-process.js';
import { acts, startScriptedApi } from '../reliability/scripted-api.js';

const WIDTHS = [40, 41, 42, 43];

describeOnRedis('local images at an API that takes URLs alone', (open) => {
  let undo: UndoStack;
  let workspace: Workspace;
  beforeEach(async () => {
    undo = new UndoStack();
    workspace = await Workspace.create();
    undo.defer(() => workspace.remove());
    await mkdir(workspace.at('photos'));
    await mkdir(workspace.at('other'));
    for (const width of WIDTHS) {
      const create = { width, height: 20, channels: 3 as const, background: 'red' };
      await sharp({ create })
        .tiff()
        .toFile(workspace.at(`photos/${width}.tiff`));
    }
    await sharp(workspace.at('photos/40.tiff')).tiff().toFile(workspace.at('other/secret.tiff'));
    await writeFile(workspace.at('photos/49.png'), 'no image');
  });
  afterEach(() => undo.release());

  const look = async (url: string) => {
    const answer = await fetch(url);
    const { width } = await sharp(Buffer.from(await answer.arrayBuffer())).metadata();
    return [answer.status, answer.headers.get('content-type'), width];
  };

  test('are served to it, also after a kill; nothing else is', async () => {
    const queue = await open();
    undo.defer(() => queue.cleanup());
    let isAnswering = false;
    const api = await startScriptedApi({
      poll: () => (isAnswering ? undefined : acts.answer(200, { progress: 10 })),
    });
    undo.defer(() => api.close());
    const port = await freePort();
    const base = `http://127.0.0.1:${port}`;
    const args = ['run', 'photos', '-o', 'out.csv', '--api', api.url, '--dialect', 'thenextleg']
      .concat(['--queue', queue.url, '--rate', '50/s', '--poll-rate', '60/s', '--json', '--no-progress'])
      .concat(['--serve-images', `127.0.0.1:${port}`, '--public-url', `${base}/pictures/`]);
    const options = { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } };
    const start = () => {
      const run = startCli(args, options);
      undo.defer(() => void run.child.kill('SIGKILL'));
      return run;
    };
    const first = start();
    await waitUntil('all are submitted', () => api.paid.size === WIDTHS.length);
    const urls = [...api.paid.keys()];
    const seen = await Promise.all(urls.map(look));
    expect(seen.sort()).toEqual(WIDTHS.map((width) => [200, 'image/jpeg', width]));
    expect(first.stderr()).toContain(`local images are served at ${base}, where ${base}/pictures/ has to`);
    expect(first.stderr()).not.toContain('warning: from here');
    await kill9(first);
    const elsewhere = await runCommand(['run', 'other', ...args.slice(2)], options);
    expect([elsewhere.code, elsewhere.stderr.trim().split('\n').length]).toEqual([1, 1]);
    expect(elsewhere.stderr).toContain('are in flight from the folder');

    const second = start();
    await waitUntil('it serves', () => second.stderr().includes('local images are served'));
    expect((await Promise.all(urls.map(look))).sort()).toEqual(seen);
    const [url = '', swapped = '', folder = ''] = urls;
    const token = new URL(url).pathname.split('/').at(-1) ?? '';
    expect(Buffer.from(token, 'base64url').toString('latin1')).not.toContain('photos');
    const head = await fetch(url, { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
    const flipped = (at: number) =>
      `${base}/${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`;
    const forged = [flipped(0), flipped(20), flipped(token.length - 6), `${base}/`, `${base}/photos/40.tiff`];
    forged.push(`${base}/..%2f..%2fetc%2fpasswd`, `${base}/${token.slice(0, 8)}.jpg`, `${url}/`);
    for (const wrong of forged) expect((await fetch(wrong)).status, wrong).toBe(404);
    expect((await fetch(url, { method: 'POST', body: 'x' })).status).toBe(404);

    // Which image a URL is of, only its width tells.
    const nameOf = async (of: string) => workspace.at(`photos/${String((await look(of))[2])}.tiff`);
    const [swappedName, folderName] = [await nameOf(swapped), await nameOf(folder)];
    for (const name of [swappedName, folderName]) await rename(name, `${name}.kept`);
    await symlink(workspace.at('other/secret.tiff'), swappedName);
    await mkdir(folderName);
    expect((await fetch(swapped)).status).toBe(404);
    expect((await fetch(folder)).status).toBe(404);

    isAnswering = true;
    const { receipt, stderr } = await endOf(second, 2);
    expect(receipt).toMatchObject({ rows: 5, described: 4, failed: 1, submits: 0, maybePaidTwice: 0 });
    expect(api.submits).toBe(WIDTHS.length);
    expect(stderr).not.toMatch(/photos\/4[1-9]/);
    expect(stderr).not.toContain(token);
    const [failed] = await workspace.records('out.failed.csv');
    expect(failed).toMatchObject({ file_name: '49.png', error_code: 'bad-image', attempts: '0' });
  });

  test('without a way there: a refusal names the option, and what is in the way is said before anything is paid', async () => {
    const queue = await open();
    undo.defer(() => queue.cleanup());
    const api = await startScriptedApi({});
    undo.defer(() => api.close());
    const run = (...flags: string[]) =>
      runCommand(
        ['run', 'photos', '-o', 'out.csv', '--api', api.url, '--dialect', 'thenextleg'].concat([
          '--queue',
          queue.url,
          '--rate',
          '50/s',
          '--no-progress',
          ...flags,
        ]),
        { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } },
      );
    const refused = async (text: string, ...flags: string[]) => {
      const { code, stderr } = await run(...flags);
      expect(stderr).toContain(text);
      expect([code, stderr.trim().split('\n').length, api.submits]).toEqual([1, 1, 0]);
    };
    await refused('--serve-images <host:port> --public-url <url>');
    await refused('--serve-images needs --public-url <url>', '--serve-images', '127.0.0.1:0');
    await refused('--public-url needs --serve-images', '--public-url', 'https://x.test');
    await refused('expected an http(s) URL', '--serve-images', '127.0.0.1:0', '--public-url', 'ftp://x');
    const { port } = new URL(api.url);
    const served = ['--serve-images', `127.0.0.1:${port}`, '--public-url', 'http://127.0.0.1:9'];
    await refused('leave --no-work away', '--no-work', ...served);
    const taken = await run(...served);
    expect([taken.code, api.submits]).toEqual([1, 0]);
    expect(taken.stderr).toContain(`--serve-images 127.0.0.1:${port}: it is in use`);
    const unreached = await run('--serve-images', '127.0.0.1:0', '--public-url', 'http://127.0.0.1:9');
    expect(unreached.stderr).toMatch(
      /warning: from here http:\/\/127\.0\.0\.1:9 does not lead to this process/,
    );
    expect(api.paid.size).toBe(WIDTHS.length);
  });
});
