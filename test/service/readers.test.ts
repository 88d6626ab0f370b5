import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { LIMITS, ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

describeOnRedis('a reader that has had enough', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  test.each([[], ['--json']])('ends status --watch, quietly', async (...flags) => {
    const watch = fixture.service.start('status', ['--watch', ...flags]);
    await waitUntil('it has written', () => watch.stdout() !== '');
    watch.child.stdout?.destroy();
    await waitUntil('it ends', () => watch.child.exitCode !== null);
    expect([watch.child.exitCode, watch.stderr()]).toEqual([0, '']);
  });

  test('of what a run says is no failure of the run', async () => {
    await fixture.workspace.write('m.csv', manifestOf(20));
    const run = fixture.service.start('run', ['m.csv', '-o', 'out.csv', '--log-level', 'trace', ...LIMITS]);
    run.child.stderr?.destroy();
    expect(await run.ended).toMatchObject({ code: 0 });
    expect(await fixture.ids('out.csv')).toHaveLength(20);
  });

  test('of what a server says is no failure of its runs', async () => {
    await fixture.workspace.write('m.csv', manifestOf(5));
    const server = await fixture.serve('--work', '--log-level', 'trace');
    await untilSaid(server, /takes runs from/);
    server.child.stderr?.destroy();
    expect((await fixture.command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    await waitUntil('all are described', async () => (await fixture.ids('out.csv')).length === 5);
    server.child.kill('SIGTERM');
    expect(await server.ended).toMatchObject({ code: 0, signal: null });
  });
});
