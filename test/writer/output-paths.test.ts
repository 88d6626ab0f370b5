import { link, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { UsageError } from '../../src/shared/errors.js';
import { assertManifestIsSafe, defaultOutputPath, runPaths } from '../../src/writer/output-paths.js';
import { makeFolder } from './fixtures.js';

test.each([
  ['/a/b.csv', '/a/b.prompts.csv', '/a/b.simulated.csv'],
  ['/a/b.csv.gz', '/a/b.prompts.csv', '/a/b.simulated.csv'],
  ['/a/b.JSONL.gz', '/a/b.prompts.csv', '/a/b.simulated.csv'],
  ['/a/b.tsv', '/a/b.prompts.csv', '/a/b.simulated.csv'],
  ['/a/b.txt', '/a/b.prompts.csv', '/a/b.simulated.csv'],
  ['/a/b.2024.csv', '/a/b.2024.prompts.csv', '/a/b.2024.simulated.csv'],
  ['/a/images', '/a/images.prompts.csv', '/a/images.simulated.csv'],
  ['/a.csv/.csv', '/a.csv/.csv.prompts.csv', '/a.csv/.csv.simulated.csv'],
])('puts the output of %s beside it', (manifest, output, simulated) => {
  expect(defaultOutputPath(manifest, { simulator: false })).toBe(output);
  expect(defaultOutputPath(manifest, { simulator: true })).toBe(simulated);
});

test('names everything that belongs to an output after it', () => {
  expect(runPaths('/a/x.csv')).toEqual({
    output: '/a/x.csv',
    working: '/a/x.csv',
    failures: '/a/x.failed.csv',
    failuresPartial: '/a/x.failed.csv.partial',
    runFile: '/a/x.csv.run',
    lock: '/a/x.csv.lock',
  });
  expect(runPaths('/a/x.parquet').working).toBe('/a/x.parquet.jsonl');
  expect(runPaths('/a/x.tsv').failures).toBe('/a/x.tsv.failed.csv');
  expect(runPaths('/a/X.CSV').failures).toBe('/a/X.failed.CSV');
});

test('refuses an output that is the manifest, by whatever name', async () => {
  const folder = await makeFolder();
  const manifest = join(folder, 'm.csv');
  await writeFile(manifest, 'url\n');
  await mkdir(join(folder, 'real'));
  await symlink(manifest, join(folder, 'symbolic.csv'));
  await link(manifest, join(folder, 'hard.csv'));
  await symlink(folder, join(folder, 'real', 'up'));
  for (const name of ['m.csv', 'symbolic.csv', 'hard.csv', 'real/up/m.csv', 'real/../m.csv']) {
    const refused = assertManifestIsSafe(manifest, runPaths(join(folder, name)));
    await expect(refused).rejects.toThrow(UsageError);
    await expect(refused).rejects.toThrow('both the manifest and the output');
  }
  await assertManifestIsSafe(manifest, runPaths(join(folder, 'm.prompts.csv')));
});

test('refuses an output whose failures file is the manifest', async () => {
  const manifest = join(await makeFolder(), 'x.failed.csv');
  await writeFile(manifest, 'url\n');
  const refused = assertManifestIsSafe(manifest, runPaths(manifest.replace('.failed', '')));
  await expect(refused).rejects.toThrow('a file that belongs to the output');
});
