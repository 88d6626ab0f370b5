import { mkdir } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { allIds } from '../reliability/run-process.js';
import { ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

describeOnRedis('a server that is frozen', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue, { latencyMs: 1500 });

  test('keeps its run, which another server waits for, and takes up when it dies', async () => {
    await mkdir(fixture.workspace.at('data'));
    await fixture.workspace.write('data/m.csv', manifestOf(100));
    const args = ['--root', 'data', '--on-done', 'echo $BULK_DESCRIBE_OUTCOME >> ended.txt'];
    const first = await fixture.serve(...args);
    await fixture.work();
    expect((await fixture.command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    const described = async () => (await fixture.ids('data/out.csv')).length;
    await waitUntil('some are described', async () => (await described()) > 3);
    first.child.kill('SIGSTOP');
    const second = await fixture.serve(...args);
    await untilSaid(second, /taken up again, and waits: .*already has|taken up again, and waits: another/);
    const before = await described();
    first.child.kill('SIGCONT');
    await waitUntil('it goes on', async () => (await described()) > before + 5);
    first.child.kill('SIGKILL');
    await untilSaid(second, /has ended with exit code 0/, 90_000);
    expect(await fixture.ids('data/out.csv')).toEqual(allIds(100));
    expect(fixture.simulator.stats().paid).toBe(100);
    // The end is reported before the command is called.
    const called = () => fixture.workspace.read('data/ended.txt').catch(() => '');
    await waitUntil('the command is called', async () => (await called()) !== '');
    expect(await called()).toBe('ended\n');
  }, 180_000);
});
