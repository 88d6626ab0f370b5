import { mkdir, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import sharp from 'sharp';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { UndoStack } from '../../src/shared/undo.js';
import { serveUntil } from '../describe-api/http-server.js';
import { startCli } from '../helpers/cli.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';
import { endOf, kill9 } from '../reliability/run-process.js';

const PICTURES = 300;
const BROKEN = new Set([17, 230]);
const HEIGHT = 16;
const widthOf = (index: number) => 24 + index;
const askedSchema = z.object({
  messages: z.array(
    z.object({ content: z.array(z.looseObject({ image_url: z.object({ url: z.string() }).optional() })) }),
  ),
});

/** Red on the left, blue on the right, and as wide as no other one; each kind of file in turn. */
async function picture(index: number): Promise<{ name: string; bytes: Buffer }> {
  const width = widthOf(index);
  const red = {
    create: { width: Math.floor(width / 2), height: HEIGHT, channels: 3 as const, background: 'red' },
  };
  const left = await sharp(red).png().toBuffer();
  const hasAlpha = index % 6 === 1;
  const background = { r: 0, g: 0, b: 255, alpha: hasAlpha ? 0.5 : 1 };
  const whole = sharp({ create: { width, height: HEIGHT, channels: hasAlpha ? 4 : 3, background } });
  const upright = await whole
    .composite([{ input: left, left: 0, top: 0 }])
    .png()
    .toBuffer();
  const name = `p${String(index).padStart(3, '0')}`;
  switch (index % 6) {
    case 0:
      // Lying on its side, as cameras store it.
      return {
        name: `${name}.jpg`,
        bytes: await sharp(upright).rotate(270).withMetadata({ orientation: 6 }).jpeg().toBuffer(),
      };
    case 1:
      return { name: `${name}.png`, bytes: upright };
    case 2:
      return { name: `${name}.webp`, bytes: await sharp(upright).webp().toBuffer() };
    case 3:
      return { name: `${name}.avif`, bytes: await sharp(upright).avif({ effort: 0 }).toBuffer() };
    case 4: {
      const second = await sharp(upright).negate().png().toBuffer();
      return {
        name: `${name}.gif`,
        bytes: await sharp([upright, second], { join: { animated: true } })
          .gif()
          .toBuffer(),
      };
    }
    default:
      return { name: `deep/${name}.tiff`, bytes: await sharp(upright).tiff().toBuffer() };
  }
}

async function makePictures(folder: string, count: number): Promise<void> {
  await mkdir(`${folder}/deep`, { recursive: true });
  for (let index = 0; index < count; index++) {
    const { name, bytes } = await picture(index);
    await writeFile(`${folder}/${name}`, BROKEN.has(index) ? bytes.subarray(0, 20) : bytes);
  }
}

/** What is wrong with an image that came; its width when nothing is. */
async function look(bytes: Buffer): Promise<number | string> {
  const { format, width, height, orientation } = await sharp(bytes).metadata();
  const index = width - widthOf(0);
  if (format !== (index % 6 === 1 ? 'png' : 'jpeg')) return `${format} of ${index}`;
  if (height !== HEIGHT || orientation !== undefined)
    return `${width}x${height}, turned ${orientation ?? 'no'}`;
  const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const at = (x: number) => data.subarray((info.width * 8 + x) * 3, (info.width * 8 + x) * 3 + 3);
  const [left, right] = [at(2), at(width - 3)];
  const isUpright =
    (left[0] ?? 0) > 180 && (left[2] ?? 255) < 90 && (right[0] ?? 255) < 90 && (right[2] ?? 0) > 180;
  return isUpright ? width : `${left.join()} on the left, ${right.join()} on the right`;
}

/** A server as Ollama is one: it refuses URLs. What is over its budget it neither answers nor counts. */
class Blind {
  readonly seen: (number | string)[] = [];
  refused = 0;
  budget = Infinity;
  url = '';

  static async start(undo: UndoStack): Promise<Blind> {
    const blind = new Blind();
    blind.url = await serveUntil(undo, (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => void blind.#answer(Buffer.concat(chunks), response));
    });
    return blind;
  }

  async #answer(body: Buffer, response: ServerResponse): Promise<void> {
    const { messages } = askedSchema.parse(JSON.parse(body.toString()));
    const url =
      messages.flatMap(({ content }) => content).find((part) => part.image_url)?.image_url?.url ?? '';
    response.setHeader('content-type', 'application/json');
    if (!url.startsWith('data:')) {
      this.refused++;
      response.statusCode = 400;
      response.end(JSON.stringify({ error: { message: 'invalid image input' } }));
      return;
    }
    if (this.budget-- <= 0) return;
    this.seen.push(await look(Buffer.from(url.slice(url.indexOf(',') + 1), 'base64')));
    const content = JSON.stringify({ prompts: ['a', 'b', 'c', 'd'] });
    response.end(JSON.stringify({ choices: [{ message: { content } }] }));
  }
}

describeOnRedis('images that are sent themselves', (open) => {
  let undo: UndoStack;
  let workspace: Workspace;
  let blind: Blind;
  beforeEach(async () => {
    undo = new UndoStack();
    workspace = await Workspace.create();
    undo.defer(() => workspace.remove());
    blind = await Blind.start(undo);
  });
  afterEach(() => undo.release());

  test('a folder of 300 pictures of all kinds, killed and resumed twice: each is described once', async () => {
    const queue = await open();
    undo.defer(() => queue.cleanup());
    await makePictures(workspace.at('photos'), PICTURES);
    const start = () =>
      startCli(
        ['run', 'photos', '-o', 'out.csv', '--api', blind.url, '--dialect', 'openai', '--model', 'm']
          .concat(['--queue', queue.url, '--rate', '200/s', '--max-in-flight', '8'])
          .concat(['--json', '--no-progress']),
        { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } },
      );
    for (const described of [100, 200]) {
      blind.budget = 100;
      const run = start();
      await waitUntil(`${described} rows`, async () => (await rowsOf(workspace)) === described);
      await kill9(run);
    }
    blind.budget = Infinity;
    const { receipt } = await endOf(start(), 2);
    expect(receipt).toMatchObject({ rows: PICTURES, resumed: 200, described: 98, failed: 2 });
    const sound = Array.from({ length: PICTURES }, (_, index) => index).filter((index) => !BROKEN.has(index));
    expect(blind.seen.sort()).toEqual(sound.map(widthOf).sort());
    expect(blind.refused).toBe(0);
    const rows = await workspace.records('out.csv');
    expect(new Set(rows.map(({ file_name: name }) => name)).size).toBe(298);
    for (const { width, height, bytes, prompt_1: prompt } of rows) {
      expect(blind.seen).toContain(Number(width));
      expect([Number(height), prompt]).toEqual([HEIGHT, 'a']);
      expect(Number(bytes)).toBeGreaterThan(50);
    }
    const failed = await workspace.records('out.failed.csv');
    expect(failed.map(({ error_code: code, attempts }) => [code, attempts])).toEqual(
      Array.from({ length: 2 }, () => ['bad-image', '0']),
    );
  });

  test('a server that refuses URLs gets the images from then on: it is said once, and no image loses an attempt', async () => {
    const queue = await open();
    undo.defer(() => queue.cleanup());
    const pictures = new Map<string, Buffer>();
    for (let index = 0; index < 30; index++) {
      const { name, bytes } = await picture(index);
      pictures.set(`/${name}`, bytes);
    }
    const host = await serveUntil(undo, (request, response) => response.end(pictures.get(request.url ?? '')));
    const rows = [...pictures.keys()].map((path) => `${host}${path}`);
    const manifest = await workspace.write('m.csv', ['image', ...rows, ''].join('\n'));
    const notices: string[] = [];
    const run = (output: string) =>
      describeManifest({
        ...{
          manifest,
          output: workspace.at(output),
          queue: queue.url,
          api: blind.url,
          dialect: 'openai',
          model: 'm',
        },
        limits: { rate: { count: 100, perMs: 1000 }, maxInFlight: 8 },
        attempts: 1,
        images: { allowPrivate: true },
        onEvent: (event) => {
          if (event.type === 'notice') notices.push(event.text);
        },
      });
    expect((await run('a.csv')).receipt).toMatchObject({ described: 30, failed: 0 });
    expect(notices).toEqual([expect.stringContaining('takes no image URLs')]);
    expect(blind.refused).toBeLessThanOrEqual(8);
    expect(blind.seen.sort()).toEqual(Array.from({ length: 30 }, (_, index) => widthOf(index)).sort());
    // It is remembered.
    const { refused } = blind;
    expect((await run('b.csv')).receipt).toMatchObject({ described: 30 });
    expect(blind.refused).toBe(refused);
  });
});

async function rowsOf(workspace: Workspace): Promise<number> {
  return (await workspace.read('out.csv').catch(() => '')).split('\n').length - 2;
}
