import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UnfinishedRows, previewManifest } from '../../src/producer/count-manifest.js';
import { type Decision, type Lookup, decideRow, decideUnfinished } from '../../src/producer/decide-row.js';
import { imageHash } from '../../src/producer/image-url.js';
import { openManifest } from '../../src/producer/manifest.js';
import { type Row, type RowPlan, readRows } from '../../src/producer/row-reader.js';
import { DescribedRows, OutputIndex } from '../../src/writer/output-index.js';
import { openText, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();

function row(number: number, cell: string): Row {
  return {
    number,
    line: number + 1,
    cells: [cell],
    url: `http://h.test/${number}`,
    image: `image-${number}`,
  };
}

function indexOf(cells: readonly (readonly [key: string, url: string])[], keyed: boolean): OutputIndex {
  const index = new OutputIndex({ keyed });
  cells.forEach(([key, url], offset) =>
    index.addFound({ image: imageHash(url), key: keyed ? key : undefined, offset }),
  );
  return index;
}

/** Nothing is under way: what the output holds decides. */
function lookupOf(onFile: DescribedRows): Lookup {
  return {
    markSeen: (row) => onFile.markSeen(row),
    isInOutput: (row) => onFile.take(row),
    isDescribed: (image) => onFile.hasImage(image),
    isPending: () => false,
    failedNow: () => undefined,
    previousFailure: () => undefined,
    isTakenUp: () => false,
    isLeftUnlessFailed: () => false,
  };
}

const URLS = ['http://a/1', 'http://a/2', 'http://a/3', 'http://a/4'];
const cells = fc.tuple(fc.constantFrom('1', '2', '3', '4', '5', ''), fc.constantFrom(...URLS, 'no url'));

describe('unfinished rows', () => {
  it('are decided on as a pass over the whole manifest would: all others are resumed', async () => {
    const scenario = fc.record({
      manifest: fc.array(cells, { minLength: 1, maxLength: 12 }),
      own: fc.array(fc.tuple(fc.constantFrom('1', '2', '3', '9'), fc.constantFrom(...URLS))),
      earlier: fc.option(fc.array(fc.tuple(fc.constantFrom('1', '4'), fc.constantFrom(...URLS)))),
      keyed: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(scenario, async ({ manifest: rows, own, earlier, keyed }) => {
        const text = `id,url\n${rows.map((cells) => cells.join(',')).join('\n')}\n`;
        const manifest = await openManifest({ path: await folder.write('manifest.csv', text) });
        const plan: RowPlan = { urlColumn: 1, keyColumn: keyed ? 0 : undefined };
        const files = [own, earlier].map((cells) => (cells === null ? undefined : indexOf(cells, keyed)));
        const onFile = new DescribedRows(files[0] ?? new OutputIndex({ keyed }), files[1]);

        onFile.startPass();
        const unfinished = new UnfinishedRows();
        await previewManifest(manifest, plan, {
          isKnown: (row) => (onFile.take(row) ? 'resumed' : onFile.hasImage(row.image) ? 'copied' : 'new'),
          unfinished,
        });

        onFile.startPass();
        const decided: [number, Decision][] = [];
        for await (const batch of readRows(manifest, plan)) {
          for (const row of batch) decided.push([row.number, decideRow(row, lookupOf(onFile))]);
        }
        await manifest.close();
        expect(unfinished.isWhole).toBe(true);
        expect(unfinished.total).toBe(rows.length);
        expect(
          unfinished.rows.map((met) => [met.row.number, decideUnfinished(met, lookupOf(onFile))]),
        ).toEqual(decided.filter(([, { action }]) => action !== 'resume'));
      }),
    );
  });

  it('are not kept when they are too many', () => {
    const unfinished = new UnfinishedRows();
    for (let number = 1; number <= 10_000; number++) unfinished.add(row(number, 'a'), false);
    unfinished.end(10_000);
    expect(unfinished.isWhole).toBe(true);
    expect(unfinished.rows).toHaveLength(10_000);
    unfinished.add(row(10_001, 'a'), false);
    expect(unfinished.isWhole).toBe(false);
    expect(unfinished.rows).toEqual([]);
  });

  it('are not kept when they are too long', () => {
    const unfinished = new UnfinishedRows();
    const megabyte = 'x'.repeat(1024 * 1024 - 16);
    for (let number = 1; number <= 4; number++) unfinished.add(row(number, megabyte), false);
    unfinished.end(4);
    expect(unfinished.isWhole).toBe(true);
    unfinished.add(row(5, megabyte), false);
    unfinished.end(5);
    expect(unfinished.isWhole).toBe(false);
  });

  it('are not kept when they have too many cells, however empty', () => {
    const unfinished = new UnfinishedRows();
    const wide = { ...row(1, ''), cells: Array.from({ length: 100_000 }, () => '') };
    for (let number = 1; number <= 3; number++) unfinished.add(wide, false);
    unfinished.end(3);
    expect(unfinished.isWhole).toBe(false);
  });

  it('are not all of a manifest that cannot be read past some place', async () => {
    const path = await folder.write('manifest.csv', 'id,url\n1,http://a/1\n2,"http://a/2\n');
    const unfinished = new UnfinishedRows();
    const counts = await previewManifest(
      await openManifest({ path }),
      { urlColumn: 1 },
      { isKnown: () => 'new', unfinished },
    );
    expect(counts.unreadable).toContain('line 3');
    expect(unfinished.isWhole).toBe(false);
  });

  it('are not all of a manifest that was only sampled, or whose reading was ended', async () => {
    const pipe = await openText('id,url\n1,http://a/1\n');
    const sampled = new UnfinishedRows();
    const options = { isKnown: () => 'new' as const, unfinished: sampled };
    expect(await previewManifest(pipe, { urlColumn: 1 }, options)).toMatchObject({ sampled: true });
    expect(sampled.isWhole).toBe(false);

    const path = await folder.write('manifest.csv', 'id,url\n1,http://a/1\n');
    const ended = new UnfinishedRows();
    await previewManifest(
      await openManifest({ path }),
      { urlColumn: 1 },
      { isKnown: () => 'new', unfinished: ended, signal: AbortSignal.abort() },
    );
    expect(ended.isWhole).toBe(false);
  });
});
