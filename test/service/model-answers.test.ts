import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RunOptions } from '../../src/run/run-options.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { UndoStack } from '../../src/shared/undo.js';
import { describeOnRedis } from '../helpers/queues.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

const IMAGES = 3;
const LIST = JSON.stringify(['a cat', 'b cat', 'c cat', 'd cat']);
const REFUSAL = "I'm sorry, I can't help with identifying people.\nIs there anything else?";

/** A model that gives the same answer to everybody, and counts how often. */
async function serveModel(undo: UndoStack, content: string) {
  const model = { url: '', submits: 0, content };
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      model.submits++;
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ id: 'c', choices: [{ message: { content: model.content } }] }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  model.url = `http://127.0.0.1:${address.port}`;
  return model;
}

describeOnRedis('what a model answers in place of four prompts', (open) => {
  let undo: UndoStack;
  let workspace: Workspace;
  let queue: Awaited<ReturnType<typeof open>>;
  beforeEach(async () => {
    undo = new UndoStack();
    workspace = await Workspace.create();
    undo.defer(() => workspace.remove());
    queue = await open();
    undo.defer(() => queue.cleanup());
    await workspace.write('m.csv', manifestOf(IMAGES));
  });
  afterEach(() => undo.release());

  const run = (api: string, about: Partial<RunOptions> = {}) =>
    describeManifest({
      ...{ manifest: workspace.at('m.csv'), output: workspace.at('out.csv'), queue: queue.url },
      ...{ api, dialect: 'openai', model: 'm' },
      limits: { rate: { count: 100, perMs: 1000 }, maxInFlight: 1 },
      ...about,
    });

  test.each([
    ['that cannot be read is asked for once more', '{"error":"no image","code":"x"}', 2],
    ['that refuses in words is not asked for again', REFUSAL, 1],
  ])('%s, and is kept with the failure', async (_title, content, times) => {
    const model = await serveModel(undo, content);
    const { exitCode, failedByCode, receipt } = await run(model.url, { attempts: 5 });
    expect(exitCode).toBe(2);
    expect(model.submits).toBe(IMAGES * times);
    expect([...failedByCode]).toEqual([['bad-response', IMAGES]]);
    expect(receipt?.balanced).toBe(true);
    const failed = await workspace.records('out.failed.csv');
    expect(failed.map((row) => row['answer'])).toEqual(Array(IMAGES).fill(content));
    expect(failed.map((row) => row['attempts'])).toEqual(Array(IMAGES).fill(String(times)));
  });

  test('by a server that ignores --choices ends the run at once, and the run goes on without the flag', async () => {
    const model = await serveModel(undo, 'A red barn --ar 1:1');
    const first = await run(model.url, { choices: 4 });
    expect(first.exitCode).toBe(3);
    expect(first.stop?.reason).toMatch(/the server ignores --choices 4 .*: leave --choices away/);
    expect(first.receipt).toMatchObject({ remaining: IMAGES, submits: 1, maybePaidTwice: 1 });
    expect(model.submits).toBe(1);
    model.content = LIST;
    const second = await run(model.url);
    expect(second.exitCode).toBe(0);
    expect(second.receipt).toMatchObject({ described: IMAGES, submits: IMAGES });
  });
});
