import { expect, test } from 'vitest';
import { RUNS_QUEUE, RUN_JOB, type RunRequest } from '../../src/service/run-request.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ProcessFixture } from './process-fixture.js';

/** Keeps what one end is told: its input, and its variables. */
const KEEP_END =
  'f="$BULK_DESCRIBE_OUTCOME-$BULK_DESCRIBE_SCHEDULE"; cat > "$f.json"; env | grep -E "^(BULK_DESCRIBE|DESCRIBE_API_TOKEN)" | sort > "$f.part"; mv "$f.part" "$f.env"';

describeOnRedis('serve --on-done', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  /** What it was told when it was last called for this outcome. */
  async function told(outcome: string, schedule = ''): Promise<{ input: unknown; env: string[] }> {
    const file = `${outcome}-${schedule}`;
    const isThere = async () => (await fixture.workspace.files()).includes(`${file}.env`);
    await waitUntil(`--on-done is called for what is ${outcome}`, isThere);
    const input: unknown = JSON.parse(await fixture.workspace.read(`${file}.json`));
    return { input, env: (await fixture.workspace.read(`${file}.env`)).trim().split('\n') };
  }

  async function askFor(request: RunRequest): Promise<void> {
    const connection = await fixture.queue.connect();
    await connection.queue<RunRequest, never>(RUNS_QUEUE).add(RUN_JOB, request);
  }

  test('gets the receipt and the exit code of a run that has ended, with rows that failed', async () => {
    await fixture.workspace.write('m.csv', `${manifestOf(3)}4,nowhere\n`);
    await fixture.serve('--work', '--on-done', KEEP_END);
    const end = await fixture.command('enqueue', 'm.csv', '-o', 'out.csv');
    const run = /^run {7}(\w+)/.exec(end.stdout)?.[1] ?? '';
    const { input, env } = await told('ended');
    const output = fixture.workspace.at('out.csv');
    expect(input).toMatchObject({ run, output, rows: 4, described: 3, failed: 1, balanced: true });
    expect(env).toEqual([
      'BULK_DESCRIBE_EXIT=2',
      'BULK_DESCRIBE_OUTCOME=ended',
      `BULK_DESCRIBE_OUTPUT=${output}`,
      `BULK_DESCRIBE_RUN=${run}`,
      'BULK_DESCRIBE_SCHEDULE=',
    ]);
  });

  test('gets why a run was refused, with exit code 1, and none of its files is made', async () => {
    await fixture.serve('--on-done', KEEP_END);
    const refused = await fixture.command('enqueue', 'none.csv', '-o', 'out.csv');
    expect(refused.code).toBe(1);
    const { input, env } = await told('refused');
    const error = refused.stderr.trim().replace(/^bulk-describe: /, '');
    expect(error).toMatch(/none\.csv cannot be opened: /);
    expect(input).toEqual({ error, manifest: 'none.csv', output: 'out.csv' });
    expect(env).toEqual([
      'BULK_DESCRIBE_EXIT=1',
      'BULK_DESCRIBE_OUTCOME=refused',
      'BULK_DESCRIBE_OUTPUT=out.csv',
      'BULK_DESCRIBE_RUN=',
      'BULK_DESCRIBE_SCHEDULE=',
    ]);
    expect((await fixture.workspace.files()).filter((name) => name.startsWith('out'))).toEqual([]);
  });

  test('gets exit code 5 for a second run on one output: refused, or skipped for a schedule', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    // Nobody works: the first one goes on.
    await fixture.serve('--on-done', KEEP_END);
    expect((await fixture.command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    await askFor({ manifest: 'm.csv', output: 'out.csv' });
    await askFor({ manifest: 'm.csv', output: 'out.csv', schedule: 'nightly' });
    for (const [outcome, schedule] of [
      ['refused', ''],
      ['skipped', 'nightly'],
    ] as const) {
      const { input, env } = await told(outcome, schedule);
      const error: unknown = expect.stringMatching(/already has the output/);
      expect(input).toEqual({ error, manifest: 'm.csv', output: 'out.csv' });
      expect(env).toEqual([
        'BULK_DESCRIBE_EXIT=5',
        `BULK_DESCRIBE_OUTCOME=${outcome}`,
        'BULK_DESCRIBE_OUTPUT=out.csv',
        'BULK_DESCRIBE_RUN=',
        `BULK_DESCRIBE_SCHEDULE=${schedule}`,
      ]);
    }
  });
});
