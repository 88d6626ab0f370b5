import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Logger, pino } from 'pino';
import { callOnDone } from '../../src/service/on-done.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';

describe('--on-done', () => {
  let workspace: Workspace;
  let logged: string[];
  let logger: Logger;

  beforeEach(async () => {
    workspace = await Workspace.create();
    logged = [];
    logger = pino({}, { write: (line: string) => logged.push(line) });
  });
  afterEach(() => workspace.remove());

  const refused = { outcome: 'refused', exitCode: 5, reason: 'it is "busy"' } as const;
  const end = {
    names: { manifest: 'm.csv', output: 'out.csv' },
    outcome: refused,
    run: undefined,
    output: undefined,
  };

  test('gets what a refused run has instead of a receipt, the exit code, and no token', async () => {
    const command = 'cat > in.json; env | grep -E "^(BULK|DESCRIBE)_" | sort > env.txt; exit 3';
    const env = { PATH: process.env['PATH'], DESCRIBE_API_TOKEN: 'secret' };
    await callOnDone(end, { command, cwd: workspace.path, env, logger });
    expect(JSON.parse(await workspace.read('in.json'))).toEqual({
      error: 'it is "busy"',
      manifest: 'm.csv',
      output: 'out.csv',
    });
    expect((await workspace.read('env.txt')).trim().split('\n')).toEqual([
      'BULK_DESCRIBE_EXIT=5',
      'BULK_DESCRIBE_OUTCOME=refused',
      'BULK_DESCRIBE_OUTPUT=out.csv',
      'BULK_DESCRIBE_RUN=',
      'BULK_DESCRIBE_SCHEDULE=',
    ]);
    expect(logged.join('')).toMatch(/ended with exit code 3/);
  });

  test('is ended when it takes too long, with what it has started', async () => {
    const command = 'sleep 300 | cat; echo over > over.txt';
    await callOnDone(end, { command, cwd: workspace.path, env: process.env, logger, deadlineMs: 300 });
    expect(logged.join('')).toMatch(/was ended after/);
    expect(await workspace.files()).toEqual([]);
  });

  test('has a bounded time from when the server is to end, and is asked to end before it is killed', async () => {
    const stopping = new AbortController();
    const command =
      'trap "echo bye > bye.txt; exit 1" TERM; touch begun; sleep 300 & wait; echo over > over.txt';
    const about = { command, cwd: workspace.path, env: process.env, logger };
    const called = callOnDone(end, { ...about, signal: stopping.signal, stopDeadlineMs: 200 });
    await waitUntil('it has begun', async () => (await workspace.files()).includes('begun'));
    stopping.abort();
    await called;
    expect(logged).toHaveLength(1);
    expect(logged[0]).toMatch(/--on-done was ended, since the server ends/);
    expect(await workspace.files()).toEqual(['begun', 'bye.txt']);
  });

  test('is killed when it does not heed that the server ends, and left alone when it ends in time', async () => {
    const about = { cwd: workspace.path, env: process.env, logger, signal: AbortSignal.abort() };
    await callOnDone(end, { ...about, command: 'sleep 0.3; echo done > done.txt' });
    expect(await workspace.files()).toEqual(['done.txt']);
    expect(logged).toEqual([]);
    await callOnDone(end, { ...about, command: 'trap "" TERM; sleep 300', stopDeadlineMs: 200 });
    expect(logged.join('')).toMatch(/was ended, since the server ends/);
  });

  test('need not read what it is given', async () => {
    await callOnDone(end, { command: 'true', cwd: workspace.path, env: process.env, logger });
    expect(logged).toEqual([]);
  });
});
