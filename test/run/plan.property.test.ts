import { readFile, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { Preview, RunOptions } from '../../src/run/run-options.js';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture, runToReceipt } from '../helpers/run-fixture.js';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));

/** What `plan` says. */
async function previewOf(options: RunOptions): Promise<Preview> {
  return (await describeManifest({ ...options, dryRun: true })).preview;
}

describeOnRedis('what is planned', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);
  let runs = 0;

  /** Plans a manifest, runs it, and compares. */
  async function expectPlanned(text: string, options: Partial<RunOptions>): Promise<void> {
    const name = `m${++runs}`;
    const manifest = await fixture.workspace.write(`${name}.csv`, text);
    const all = {
      ...{ manifest, output: fixture.workspace.at(`${name}.out.csv`), prices: { perImage: 0.25 } },
      ...{ api: fixture.simulator.url, queue: fixture.queue.url, stopFailing: 100, ...options },
    };
    const plan = await previewOf(all);
    const { paid } = fixture.simulator.stats();
    const { receipt, failedByCode } = await runToReceipt(all);
    expect(fixture.simulator.stats().paid - paid).toBe(plan.toSubmit);
    expect(receipt).toMatchObject({
      ...{ rows: plan.rows, submits: plan.toSubmit, described: plan.toSubmit, resumed: plan.described },
      ...{
        cost: plan.toSubmit * 0.25,
        remaining: plan.rows - receipt.failed - receipt.copied - plan.toSubmit,
      },
    });
    expect(failedByCode.get('duplicate-key') ?? 0).toBe(plan.duplicateKeys);
    expect(failedByCode.get('invalid-url') ?? 0).toBe(plan.badUrls);
    // Rows of images that were left have nothing to be copied.
    if (options.limit === undefined && options.sample === undefined) expect(receipt.copied).toBe(plan.toCopy);
    const again = await previewOf(all);
    expect(again.described).toBe(receipt.described + receipt.copied);
    expect(again.toSubmit).toBe(
      options.limit === undefined ? 0 : Math.min(options.limit, plan.images - plan.toSubmit),
    );
  }

  test('is what is run, of every example', async () => {
    // Whoever has tried the example has its outputs beside it.
    const isOutput = (name: string) => /\.(simulated|prompts)\./.test(name);
    const found = await readdir(EXAMPLES);
    const names = found.filter((name) => name.endsWith('.csv') && !isOutput(name));
    expect(names).not.toEqual([]);
    for (const name of names) await expectPlanned(await readFile(`${EXAMPLES}${name}`, 'utf8'), {});
  });

  test('is what is run, of random manifests', async () => {
    const row = fc.record({ id: fc.nat(12), image: fc.nat(8) });
    const cases = fc.record(
      {
        keyed: fc.boolean(),
        sample: fc.integer({ min: 1, max: 10 }),
        limit: fc.integer({ min: 1, max: 10 }),
      },
      { requiredKeys: ['keyed'] },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 25 }), cases, async (rows, how) => {
        const { keyed, sample, limit } = how;
        const urlOf = (image: number) => (image === 0 ? 'no url' : `http://h${runs}.test/${image}.jpg`);
        const lines = rows.map(({ id, image }) => `${id},${urlOf(image)}\n`).join('');
        const options = { sample, limit: sample === undefined ? limit : undefined };
        await expectPlanned(`id,image\n${lines}`, {
          ...{ ...options, urlColumn: 'image', keyColumn: keyed ? 'id' : undefined },
        });
      }),
      { numRuns: 15 },
    );
  });
});
