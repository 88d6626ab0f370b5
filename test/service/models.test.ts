import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import type { RunOptions } from '../../src/run/run-options.js';
import { accountOf } from '../../src/run/api-options.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { UndoStack } from '../../src/shared/undo.js';
import { serveUntil } from '../describe-api/http-server.js';
import { describeOnRedis } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';

const IMAGES = 40;
const askedSchema = z.looseObject({ model: z.string(), messages: z.array(z.unknown()) });

/** Answers with what it was asked: the model, and whether the prompt was the one of our own. */
function serveEcho(undo: UndoStack): Promise<string> {
  return serveUntil(undo, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const { model } = askedSchema.parse(JSON.parse(text));
      const said = `${model}, ${text.includes('PROMPT OF B') ? 'B' : 'ours'}`;
      const content = JSON.stringify([said, said, said, said]);
      setTimeout(() => {
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify({ id: 'c', choices: [{ message: { role: 'assistant', content } }] }));
      }, 30);
    });
  });
}

describeOnRedis('two models at one API', (open) => {
  let undo: UndoStack;
  let workspace: Workspace;
  beforeEach(async () => {
    undo = new UndoStack();
    workspace = await Workspace.create();
    undo.defer(() => workspace.remove());
  });
  afterEach(() => undo.release());

  test('describe the images of their own runs alone, at the same time and in one queue server', async () => {
    const queue = await open();
    undo.defer(() => queue.cleanup());
    const api = await serveEcho(undo);
    const rows = Array.from({ length: IMAGES }, (_, row) => `${row},https://images.test/${row}.jpg`);
    await workspace.write('m.csv', ['id,image', ...rows, ''].join('\n'));
    const rate = { count: 200, perMs: 1000 };
    const run = (about: Partial<RunOptions> & { output: string }) =>
      describeManifest({
        manifest: workspace.at('m.csv'),
        api,
        dialect: 'openai',
        queue: queue.url,
        limits: { rate, pollRate: rate, maxInFlight: 5 },
        ...about,
      });
    await Promise.all([
      run({ output: workspace.at('a.csv'), model: 'model-a' }),
      run({ output: workspace.at('b.csv'), model: 'model-b', prompt: 'PROMPT OF B' }),
      run({ output: workspace.at('ab.csv'), model: 'model-a', prompt: 'PROMPT OF B' }),
    ]);
    for (const [output, said] of [
      ['a.csv', 'model-a, ours'],
      ['b.csv', 'model-b, B'],
      ['ab.csv', 'model-a, B'],
    ] as const) {
      const prompts = (await workspace.records(output)).map((record) => record['prompt_1']);
      expect(prompts).toEqual(Array.from({ length: IMAGES }, () => said));
    }
  });
});

test('the account of a model is told by model, prompt and choices, and has a name that a queue can have', () => {
  const name = (about: Partial<RunOptions>) =>
    accountOf({ api: 'http://127.0.0.1:1', dialect: 'openai', ...about }).name;
  expect(name({ model: 'qwen/qwen2-vl:7b@q4', account: 'night' })).toMatch(
    /^night\+qwen-qwen2-vl-7b-q4\.[0-9a-f]{8}$/,
  );
  expect(name({ model: 'm', choices: 1 })).toBe(name({ model: 'm' }));
  const names = [
    { model: 'm' },
    { model: 'n' },
    { model: 'm', prompt: 'p' },
    { model: 'm', choices: 4 as const },
  ].map(name);
  expect(new Set(names).size).toBe(4);
  expect(() => name({})).toThrow(/needs a model: name it with --model/);
});
