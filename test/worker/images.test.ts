import { once } from 'node:events';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { RejectedError, StatusError } from '../../src/describe-api/errors.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { UndoStack } from '../../src/shared/undo.js';
import { isPrivateAddress } from '../../src/worker/fetch-image.js';
import type { ImageOptions } from '../../src/shared/prepare-image.js';
import { Images } from '../../src/worker/images.js';
import { serveUntil } from '../describe-api/http-server.js';
import { describeOnRedis } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';

test.each([
  ['127.0.0.1', true],
  ['10.1.2.3', true],
  ['172.31.0.1', true],
  ['192.168.1.1', true],
  ['169.254.169.254', true],
  ['100.64.0.1', true],
  ['0.0.0.0', true],
  ['224.0.0.1', true],
  ['::1', true],
  ['::', true],
  ['fe80::1', true],
  ['fd00::1', true],
  ['::ffff:127.0.0.1', true],
  ['::ffff:7f00:1', true],
  ['64:ff9b::a00:1', true],
  ['172.32.0.1', false],
  ['8.8.8.8', false],
  ['2606:4700::1111', false],
  ['::ffff:8.8.8.8', false],
])('%s is private: %s', (address, isPrivate) => {
  expect(isPrivateAddress(address)).toBe(isPrivate);
});

describeOnRedis('an image', (open) => {
  const undo = new UndoStack();
  const never = new AbortController().signal;
  let connection: QueueConnection;
  let workspace: Workspace;
  let host: string;
  let jpeg: Buffer;
  let asked: string[] = [];
  let accounts = 0;

  beforeAll(async () => {
    const queue = await open();
    connection = await queue.connect();
    workspace = await Workspace.create();
    undo.defer(() => workspace.remove());
    jpeg = await sharp({ create: { width: 300, height: 200, channels: 3, background: 'red' } })
      .jpeg()
      .toBuffer();
    await mkdir(workspace.at('root/inner'), { recursive: true });
    await mkdir(workspace.at('other'));
    await writeFile(workspace.at('root/a.jpg'), jpeg);
    await writeFile(workspace.at('root/no-image-ending'), jpeg);
    await writeFile(workspace.at('root/empty.jpg'), '');
    await writeFile(workspace.at('root/text.jpg'), 'This is a text.\n'.repeat(100));
    await writeFile(workspace.at('root/cut.jpg'), jpeg.subarray(0, jpeg.length / 2));
    await writeFile(workspace.at('root/bomb.png'), bomb());
    await writeFile(workspace.at('root/large.jpg'), Buffer.alloc(200_000));
    await writeFile(workspace.at('other/b.jpg'), jpeg);
    await symlink(workspace.at('other/b.jpg'), workspace.at('root/out.jpg'));
    await symlink(workspace.at('root/a.jpg'), workspace.at('root/inner/in.jpg'));
    await symlink('/dev/zero', workspace.at('root/device.jpg'));
    host = await serveUntil(undo, (request, response) => {
      asked.push(request.url ?? '');
      answerImage(request, response, jpeg);
    });
  });
  afterAll(() => undo.release());

  function images(options: ImageOptions = {}, api = 'api.test', notices: string[] = []): Promise<Images> {
    return Images.open(
      { send: 'data', roots: [workspace.at('root')], maxBytes: 100_000, ...options },
      {
        dialect: { name: 'openai', takesData: true },
        host: api,
        connection,
        queueName: `images-${accounts++}`,
        onNotice: (text) => notices.push(text),
      },
    );
  }

  const fileUrl = (name: string) => pathToFileURL(workspace.at(name)).href;
  const read = async (url: string, options: ImageOptions = {}, attempts = 1): Promise<string> => {
    const opened = await images(options);
    undo.defer(() => opened.close());
    return await opened.read(url, attempts, never);
  };

  test.each([['root/a.jpg'], ['root/no-image-ending'], ['root/inner/in.jpg']])('reads %s', async (name) => {
    const uri = await read(fileUrl(name));
    const { width, height, format } = await sharp(bytesOf(uri)).metadata();
    expect([width, height, format]).toEqual([300, 200, 'jpeg']);
  });

  test('is made smaller, and nothing is made larger', async () => {
    const { width, height } = await sharp(
      bytesOf(await read(fileUrl('root/a.jpg'), { side: 60 })),
    ).metadata();
    expect([width, height]).toEqual([60, 40]);
  });

  test.each([
    ['root/missing.jpg', {}, 'no such file or folder'],
    ['root/empty.jpg', {}, 'it has 0 bytes'],
    ['root/text.jpg', {}, 'it is no image that can be read'],
    ['root/cut.jpg', {}, 'it is no image that can be read'],
    ['root/bomb.png', {}, 'exceeds pixel limit'],
    ['root/large.jpg', {}, 'more than 100000 bytes, which are the most (--max-image-bytes)'],
    ['root/inner', {}, 'it is no regular file'],
    ['root/out.jpg', {}, 'only --follow-links allows'],
    ['root/device.jpg', { followLinks: true }, 'it is no regular file'],
    ['other/b.jpg', {}, 'outside of the folders that may be read'],
    ['other/b.jpg', { followLinks: true }, 'outside of the folders that may be read'],
    ['root/../other/b.jpg', {}, 'outside of the folders that may be read'],
    ['root/a.jpg', { roots: [] }, 'start it with --image-root <folder>'],
    ['root/a.jpg', { send: 'url' }, '--send url sends URLs alone'],
  ] as const)('at %s with %j is refused: %s', async (name, options, reason) => {
    await expect(read(fileUrl(name), options)).rejects.toMatchObject({
      name: 'BadImageError',
      message: expect.stringContaining(reason) as unknown,
    });
  });

  test('behind a link that leads out is read with --follow-links', async () => {
    expect(await read(fileUrl('root/out.jpg'), { followLinks: true })).toMatch(/^data:image\/jpeg;base64,/);
  });

  test('in the manifest itself is prepared like all others', async () => {
    const uri = await read(`data:image/whatever;base64,${jpeg.toString('base64')}`, { side: 30 });
    expect((await sharp(bytesOf(uri)).metadata()).width).toBe(30);
  });

  test.each([['/image'], ['/as-text'], ['/redirect/5'], ['/flaky']])('at %s is fetched', async (path) => {
    asked = [];
    expect(await read(`${host}${path}`, { allowPrivate: true }, 2)).toMatch(/^data:image\/jpeg;base64,/);
  });

  test.each([
    ['/missing', 'answers 404'],
    ['/redirect/6', 'more than 5 redirects'],
    ['/to-file', 'only http(s) is followed'],
    ['/endless', 'more than 100000 bytes'],
    ['/page', 'it is no image that can be read'],
    ['/empty', 'it has 0 bytes'],
    ['/broken-off', 'cannot be reached'],
    ['/down', 'answers 503'],
  ])('at %s fails: %s', async (path, reason) => {
    await expect(read(`${host}${path}`, { allowPrivate: true })).rejects.toThrow(reason);
  });

  test.each([
    ['http://127.0.0.1'],
    ['http://localhost'],
    ['http://[::1]'],
    ['http://0x7f.1'],
    ['http://2130706433'],
  ])('at %s is not asked for without --allow-private', async (start) => {
    asked = [];
    const { port } = new URL(host);
    await expect(read(`${start}:${port}/image`)).rejects.toThrow('only with --allow-private');
    expect(asked).toEqual([]);
  });

  test('at http:// goes through a proxy without a tunnel, which many have for https:// alone', async () => {
    const through: (string | undefined)[] = [];
    const proxy = createServer((request, response) => {
      through.push(request.url);
      response.end(jpeg);
    });
    proxy.on('connect', (_request, socket) => socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'));
    await once(proxy.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => void proxy.close());
    const address = proxy.address();
    vi.stubEnv('HTTP_PROXY', `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : 0}`);
    onTestFinished(() => void vi.unstubAllEnvs());
    expect(await read('http://images.invalid/a.jpg')).toMatch(/^data:image\/jpeg;base64,/);
    expect(through).toEqual(['http://images.invalid/a.jpg']);
  });

  test('is not to blame where this machine cannot load what prepares images', async () => {
    vi.doMock('sharp', () => {
      throw new Error('Could not load the "sharp" module');
    });
    onTestFinished(() => {
      vi.doUnmock('sharp');
    });
    await expect(read(fileUrl('root/a.jpg'))).rejects.not.toMatchObject({ name: 'BadImageError' });
  });

  test('that nothing delivers is asked for as often as an image may be submitted', async () => {
    asked = [];
    await expect(read(`${host}/down`, { allowPrivate: true }, 2)).rejects.toThrow('answers 503');
    expect(asked).toEqual(['/down', '/down']);
  });

  describe('of an API that is not known', () => {
    const call = { method: 'POST', url: 'http://api.test', redact: (text: string) => text } as const;
    const refusal = (status: number, reason: string) =>
      status < 500
        ? new RejectedError(call, { status, reason })
        : new StatusError(call, { status, reason, refused: false });

    test.each([
      [400, 'invalid image input', true],
      [400, "'url' field must be a base64 encoded image.", true],
      [400, 'Bad Request', true],
      [500, 'Failed to load image or audio file', true],
      [400, 'the prompt was flagged by moderation', false],
      [404, 'model m not found', false],
      [500, 'internal error', false],
    ])('%i %s: it takes no URLs: %s', async (status, reason, isSwitched) => {
      const notices: string[] = [];
      const opened = await images({ send: 'auto', allowPrivate: true }, 'api.test', notices);
      undo.defer(() => opened.close());
      const url = `${host}/image`;
      expect(await opened.read(url, 1, never)).toBe(url);
      expect(await opened.refusedUrl(refusal(status, reason), url, url, never)).toBe(isSwitched);
      expect(await opened.read(url, 1, never)).toMatch(isSwitched ? /^data:/ : /^http:/);
      expect(notices).toHaveLength(isSwitched ? 1 : 0);
    });

    test('is believed to take URLs once it has taken one, and where the image is not there', async () => {
      const opened = await images({ send: 'auto', allowPrivate: true });
      undo.defer(() => opened.close());
      const url = `${host}/missing`;
      expect(await opened.refusedUrl(refusal(400, 'no'), url, url, never)).toBe(false);
      await opened.described(`${host}/image`);
      expect(await opened.refusedUrl(refusal(400, 'no'), `${host}/image`, `${host}/image`, never)).toBe(
        false,
      );
    });

    test.each([
      ['api.openai.com', /^http/],
      ['generativelanguage.googleapis.com', /^data:/],
    ])('but %s is', async (api, sent) => {
      const opened = await images({ send: 'auto', allowPrivate: true }, api);
      undo.defer(() => opened.close());
      expect(await opened.read(`${host}/image`, 1, never)).toMatch(sent);
    });
  });
});

function bytesOf(uri: string): Buffer {
  return Buffer.from(uri.slice(uri.indexOf(',') + 1), 'base64');
}

/** 50 KB that unpack to 400 million pixels. */
function bomb(): Buffer {
  const side = 20_000;
  const chunk = (name: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(name), data]);
    const numbers = Buffer.alloc(8);
    numbers.writeUInt32BE(data.length);
    numbers.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
  };
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
  header.writeUInt32BE(side);
  header.writeUInt32BE(side, 4);
  const pixels = deflateSync(Buffer.alloc((side / 8 + 1) * side));
  const parts = [chunk('IHDR', header), chunk('IDAT', pixels), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), ...parts]);
}

function answerImage(request: IncomingMessage, response: ServerResponse, jpeg: Buffer): void {
  const [, kind = '', count = ''] = (request.url ?? '').split('/');
  const redirect = (location: string) => response.writeHead(302, { location }).end();
  switch (kind) {
    case 'image':
      response.setHeader('content-type', 'image/jpeg').end(jpeg);
      return;
    case 'as-text':
      response.setHeader('content-type', 'text/plain').end(jpeg);
      return;
    case 'flaky':
      if (flaky++ % 2 === 0) response.writeHead(503).end();
      else response.end(jpeg);
      return;
    case 'redirect':
      redirect(Number(count) > 1 ? `/redirect/${Number(count) - 1}` : '/image');
      return;
    case 'to-file':
      redirect('file:///etc/hostname');
      return;
    case 'page':
      response.setHeader('content-type', 'image/jpeg').end('<html>Sign in</html>');
      return;
    case 'empty':
      response.end();
      return;
    case 'down':
      response.writeHead(503).end();
      return;
    case 'broken-off':
      response.writeHead(200, { 'content-length': '1000' });
      response.write('abc', () => response.destroy());
      return;
    case 'endless': {
      const more = () => {
        if (!response.destroyed) response.write(Buffer.alloc(50_000), () => setImmediate(more));
      };
      more();
      return;
    }
    default:
      response.writeHead(404).end();
  }
}

let flaky = 0;
