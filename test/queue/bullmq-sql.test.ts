import { readFile, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test, vi } from 'vitest';
import { embeddedFixture } from '../helpers/queues.js';
import { soon } from '../helpers/wait-until.js';

const DAY_MS = 86_400_000;

// What the embedded queue takes for granted of the statements and tables of BullMQ, besides what its own tests need.

async function openEmbedded() {
  const fixture = await embeddedFixture();
  onTestFinished(() => fixture.cleanup());
  return fixture.connect();
}

test.each([-DAY_MS, DAY_MS])('a clock that jumps by %d ms changes no delay', async (jumpMs) => {
  onTestFinished(() => void vi.restoreAllMocks());
  const connection = await openEmbedded();
  const queue = connection.queue<object, null>('q');
  const ended: number[] = [];
  connection.worker<object, null>(
    'q',
    () => Promise.resolve(ended.push(performance.now())).then(() => null),
    {},
  );
  const added = performance.now();
  const job = await queue.add('x', {}, { delay: 1500 });
  const now = Date.now;
  vi.spyOn(Date, 'now').mockImplementation(() => now() + jumpMs);
  await vi.waitFor(async () => expect(await queue.getJobState(job.id ?? '')).toBe('completed'), soon);
  expect(ended[0]).toBeGreaterThan(added + 1000);
});

test('only migrations begin transactions, which nobody has to himself', async () => {
  const folder = join(dirname(fileURLToPath(import.meta.resolve('bullmq'))), 'postgres');
  const names = (await readdir(folder)).filter((name) => name.endsWith('.js'));
  const begins: string[] = [];
  for (const name of names) {
    const source = await readFile(join(folder, name), 'utf8');
    if (/['"`](BEGIN|START TRANSACTION)\b|\\n(BEGIN|START TRANSACTION)\s*;/.test(source)) begins.push(name);
  }
  expect(begins).toEqual(['migrator.js']);
});
