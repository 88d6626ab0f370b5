import { mkdir } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { ProcessFixture } from './process-fixture.js';

describeOnRedis('bulk-describe schedule', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  const add = (name: string, manifest: string, cron: string) =>
    fixture.command('schedule', 'add', name, manifest, '-o', 'o-{date}.csv', '--cron', cron, '--tz', 'UTC');

  test('shows seconds where the cron pattern has them', async () => {
    await fixture.workspace.write('m.csv', 'id,image\n');
    expect((await add('often', 'm.csv', '15 0 2 * * *')).stdout).toMatch(/^next .* 02:00:15 (\(|in )UTC\)$/m);
    expect((await add('nightly', 'm.csv', '0 2 * * *')).stdout).toMatch(/^next .* 02:00 (\(|in )UTC\)$/m);
    const { stdout } = await fixture.command('schedule', 'list');
    expect(stdout).toMatch(/^ +next .* 02:00:15 (\(|in )UTC\)$/m);
    expect(stdout).toMatch(/^ +next .* 02:00 (\(|in )UTC\)$/m);
  });

  test('warns at once of a manifest that the server here does not have', async () => {
    const missing = await add('a', 'nothing.csv', '0 2 * * *');
    expect(missing.code).toBe(0);
    expect(missing.stderr).toMatch(
      /^warning: there is no nothing\.csv in this folder; a server looks in its --root \(/m,
    );
    await fixture.workspace.write('m.csv', 'id,image\n');
    expect((await add('a', 'm.csv', '0 2 * * *')).stderr).not.toContain('warning');

    await mkdir(fixture.workspace.at('data'));
    await fixture.serve('--root', 'data');
    const elsewhere = await add('a', 'm.csv', '0 2 * * *');
    expect(elsewhere.stderr).toMatch(
      /^warning: there is no m\.csv in the server's folder \(.*data\): runs are refused until it is there$/m,
    );
    await fixture.workspace.write('data/m.csv', 'id,image\n');
    expect((await add('a', 'm.csv', '0 2 * * *')).stderr).toBe('');
  });
});
