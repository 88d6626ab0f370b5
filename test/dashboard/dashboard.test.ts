import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { act } from '../../src/dashboard/actions.js';
import { type Dashboard, startDashboard } from '../../src/dashboard/dashboard.js';
import type { Companion } from '../../src/run/run-options.js';
import { UsageError } from '../../src/shared/errors.js';
import { RUNS_QUEUE } from '../../src/shared/jobs.js';
import { RUNS } from '../../src/shared/published.js';
import { type QueueConnection, openQueue as openConnection } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { RunFixture } from '../helpers/run-fixture.js';

const PASSWORD = 'redis-0123456789-secret';
const TOKEN = 'tok-0123456789-secret';

const boardSchema = z.object({
  queues: z.array(
    z.object({
      name: z.string(),
      readOnlyMode: z.boolean(),
      counts: z.record(z.string(), z.number()),
      jobs: z.array(
        z.object({
          id: z.string(),
          name: z.string(),
          isFailed: z.boolean(),
          externalUrl: z.object({ href: z.string() }).optional(),
        }),
      ),
    }),
  ),
});

describeOnBothQueues('the dashboard beside a run', (openQueue, kind) => {
  const fixture = RunFixture.forSuite(openQueue);

  /** Runs a manifest with a dashboard beside it, which is looked at before the run ends. */
  async function runBeside(
    count: number,
    look: (board: Dashboard, connection: QueueConnection) => Promise<void>,
  ) {
    let looking: Promise<void> | undefined;
    const interrupt = new AbortController();
    const companion: Companion = async (connection, _imageRoots, mayRead) => {
      const dashboard = await startDashboard(connection, { port: 0, mayRead });
      looking = look(dashboard, connection).finally(() => interrupt.abort());
      // Awaited when the run has ended.
      looking.catch(() => undefined);
      return () => dashboard.close();
    };
    const manifest = await fixture.workspace.write('m.csv', manifestOf(count));
    const limits = { rate: { count: 5, perMs: 1000 }, pollRate: { count: 50, perMs: 1000 }, maxInFlight: 5 };
    const options = { manifest, limits, token: TOKEN, companions: [companion], signal: interrupt.signal };
    const ended = await fixture.runAnyhow({ ...options, stopFailing: 100 });
    await looking;
    return ended;
  }

  test('shows runs, jobs and figures, of whatever queue, and no token anywhere', async () => {
    fixture.simulator.setOptions({ token: TOKEN, failures: { reject: 0.3 } });
    const seen: string[] = [];
    await runBeside(200, async ({ url }, connection) => {
      /** A machine that is busy: the page asks to be asked again. */
      const answerOf = async (path: string) => {
        let answer = await fetch(`${url}${path}`);
        while (answer.status === 503) answer = await fetch(`${url}${path}`);
        return answer;
      };
      const get = async (path: string) => {
        const answer = await answerOf(path);
        const text = await answer.text();
        expect(answer.status, `${path}: ${text}`).toBe(200);
        seen.push(text, JSON.stringify([...answer.headers]));
        return text;
      };
      const board = async (query = '') =>
        boardSchema.parse(JSON.parse(await get(`/board/api/queues${query}`))).queues;
      await waitUntil('some images described and some failed', async () => {
        const queues = await board();
        const counts = queues.find(({ name }) => name.startsWith('describe@'))?.counts;
        const hasResults = queues.some(({ name }) => name.startsWith('results@'));
        return hasResults && (counts?.['completed'] ?? 0) > 2 && (counts?.['failed'] ?? 0) > 0;
      });
      const list = await get('/runs');
      const run = /href="\/runs\/([^"]+)"/.exec(list)?.[1] ?? '';
      const page = await get(`/runs/${run}`);
      expect(page).toContain('--ar ');
      expect(page).toContain('Newest failures');
      expect(await get('/')).toContain(run);
      await waitUntil('rows in the output', async () =>
        /"total":[1-9]/.test(await get(`/runs/${run}/results`)),
      );
      const status = await RUNS.find(connection.store, run);
      const ended = { exitCode: 0, remaining: 0 };
      const forged = { run: 'r00000000000', output: '/etc/passwd', ended };
      if (status !== undefined) await RUNS.publish(connection.store, forged.run, { ...status, ...forged });
      const refused = await answerOf('/runs/r00000000000/results');
      expect([refused.status, await refused.text()]).toEqual([
        404,
        expect.stringContaining('its own results alone'),
      ]);
      expect(await get('/metrics')).toMatch(/bulk_describe_submits_total\{account="[^"]+"\} [1-9]/);

      const queues = await board();
      expect(
        queues.map(({ name, readOnlyMode }) => `${name.replace(/@.*/, '')} ${String(readOnlyMode)}`),
      ).toEqual(['runs true', 'describe true', 'results true']);
      const name = queues.find((queue) => queue.name.startsWith('describe@'))?.name ?? '';
      const [images] = (
        await board(`?activeQueue=${encodeURIComponent(name)}&status=latest&page=1&jobsPerPage=50`)
      ).filter((queue) => queue.name === name);
      const failed = images?.jobs.find((job) => job.isFailed);
      expect(failed?.name).toMatch(/^\d+\.jpg, row \d+$/);
      expect(failed?.externalUrl?.href).toMatch(/^http:\/\/images\.test\/\d+\.jpg$/);
      const job = `/board/api/queues/${encodeURIComponent(name)}/${failed?.id ?? ''}`;
      await waitUntil('its log', async () => (await get(`${job}/logs`)).includes('failed (rejected)'));
      await get(job);
      await get(`/board/queue/${encodeURIComponent(name)}`);
      await get('/board/api/redis/stats');
      if (kind === 'redis')
        expect(await get(`/board/api/queues/${encodeURIComponent(name)}/workers`)).toContain(
          `"name":"${hostname()}:${process.pid}:`,
        );
      await get('/board/api/job-schedulers');

      const put = async (path: string) => (await fetch(`${url}${path}`, { method: 'PUT' })).status;
      expect(await put(`${job}/retry`)).toBe(405);
      expect(await put('/board/api/queues/pause')).toBe(405);
      expect(await put('/%62oard/api/queues/pause')).toBe(405);
      // What is in flight keeps the run, and so its dashboard, until the last answer was read; then the run is interrupted.
      fixture.simulator.setOptions({ latencyMs: 600_000 });
      const submitted = fixture.simulator.stats().paid;
      // A form of the run's page; what was done is said where it leads to.
      const press = async (action: string, headers = {}) => {
        const form = { 'content-type': 'application/x-www-form-urlencoded', ...headers };
        return fetch(`${url}/do/${action}`, { method: 'POST', headers: form, redirect: 'manual' });
      };
      const said = async (action: string) => get((await press(action)).headers.get('location') ?? '');
      expect(page).toMatch(new RegExp(`action="/do/retry-image/${run}[^"]+"`));
      expect(await said(`retry-image/${failed?.id ?? ''}`)).toContain('taken up again: its row comes');
      const completed = (
        await board(`?activeQueue=${encodeURIComponent(name)}&status=completed&page=1&jobsPerPage=5`)
      ).find((queue) => queue.name === name)?.jobs[0]?.id;
      expect(await said(`retry-image/${completed ?? ''}`)).toContain('it is not failed any more');
      expect(await said(`retry-run/${run}`)).toContain('has not ended yet');
      const nowhere = (await press('cancel-run/nobody')).headers.get('location') ?? '';
      expect(await (await answerOf(nowhere)).text()).toContain('no run nobody is known');
      expect(await said('pause-account/nobody')).toContain('nobody has worked for this account');
      expect((await press(`cancel-run/${run}`, { origin: 'http://evil.test' })).status).toBe(403);
      expect((await press(`cancel-run/${run}`, { 'sec-fetch-site': 'cross-site' })).status).toBe(403);
      expect((await press(`burn-down/${run}`)).status).toBe(404);
      expect((await answerOf(`/do/cancel-run/${run}`)).status).toBe(404);
      const broken = { method: 'POST', body: '{', headers: { 'content-type': 'application/json' } };
      expect((await fetch(`${url}/do/cancel-run/${run}`, broken)).status).toBe(400);
      expect(await said(`pause-account/${encodeURIComponent(name)}`)).toContain('paused: what is submitted');
      expect(await get(`/runs/${run}`)).toContain(`/do/resume-account/${encodeURIComponent(name)}`);
      expect(await said(`resume-account/${encodeURIComponent(name)}`)).toContain('resumed');
      await waitUntil('an image in flight', () => fixture.simulator.stats().paid > submitted + 1);
      expect(await said(`cancel-run/${run}`)).toContain('nothing more is submitted');
      expect((await answerOf('/runs/nobody')).status).toBe(404);
      expect((await answerOf('/healthz')).status).toBe(200);
    });
    expect(seen.join('\n')).not.toContain(TOKEN);
  });

  // An embedded queue is gone with its run.
  const once = 'takes failed images up once, however often that is pressed at a time';
  test.runIf(kind === 'redis')(once, async () => {
    fixture.simulator.setOptions({ failures: { reject: 1 } });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(20));
    const { receipt } = await fixture.runAnyhow({ manifest, stopFailing: 100 });
    const connection = await fixture.queue.connect();
    try {
      const said = await Promise.all([1, 2].map(() => act(connection, 'retry-images', receipt.run)));
      const counts = said.map((text) => {
        const [, taken, moved = '0'] =
          /^(\d+) failed images? taken up again(?:.*; (\d+) .* meanwhile)?/.exec(text) ?? [];
        return [Number(taken), Number(moved)];
      });
      expect(counts.map(([taken = 0, moved = 0]) => taken + moved)).toEqual([20, 20]);
      expect(counts.reduce((sum, [taken = 0]) => sum + taken, 0)).toBe(20);
    } finally {
      await connection.close();
    }
  });

  test('resumes the queue that servers take runs from, and does nothing else with it', async () => {
    const connection = await fixture.queue.connect();
    const dashboard = await startDashboard(connection, { port: 0 });
    const button = 'action="/do/resume-account/runs"';
    try {
      const runs = connection.queue(RUNS_QUEUE);
      await runs.pause();
      const page = async () => (await fetch(`${dashboard.url}/runs`)).text();
      expect(await page()).toContain(button);
      for (const action of ['pause-account', 'hurry-account'] as const)
        expect(await act(connection, action, RUNS_QUEUE)).toContain('nobody has worked for this account');
      expect(await act(connection, 'resume-account', RUNS_QUEUE)).toBe('resumed');
      expect(await runs.isPaused()).toBe(false);
      expect(await page()).not.toContain(button);
    } finally {
      await dashboard.close();
      await connection.close();
    }
  });

  test.runIf(kind === 'redis')('has no queue password in any page', async () => {
    const redis = await startRedis('--requirepass', PASSWORD);
    const connection = await openConnection(parseQueueUrl(redis.url.replace('//', `//:${PASSWORD}@`), {}));
    const dashboard = await startDashboard(connection, { port: 0 });
    try {
      const paths = [
        '/runs',
        '/metrics',
        '/healthz',
        '/board',
        '/board/api/queues',
        '/board/api/redis/stats',
      ];
      for (const path of [
        ...paths,
        '/board/api/queues/runs/workers',
        '/nothing',
        '/board/api/queues/runs/nobody',
      ]) {
        const answer = await fetch(`${dashboard.url}${path}`);
        const seen = JSON.stringify([...answer.headers]) + (await answer.text());
        expect(seen, path).not.toContain(PASSWORD);
      }
    } finally {
      await dashboard.close();
      await connection.close();
      await redis.stop();
    }
  });

  test('tells of a port that is taken in one line, before anything is paid', async () => {
    const connection = await fixture.queue.connect();
    const first = await startDashboard(connection, { port: 0 });
    try {
      const second = startDashboard(connection, { port: first.port });
      await expect(second).rejects.toThrow(UsageError);
      await expect(second).rejects.toThrow(/^the dashboard at 127\.0\.0\.1:\d+: it is in use; name another/);
    } finally {
      await first.close();
      await connection.close();
    }
  });

  test.runIf(kind === 'redis')('shows the queues of runs as long as they go on', async () => {
    const connection = await fixture.queue.connect();
    const dashboard = await startDashboard(connection, { port: 0, readOnly: true });
    const names = async () => {
      const answer = await fetch(`${dashboard.url}/board/api/queues`);
      return boardSchema.parse(await answer.json()).queues.map(({ name }) => name.replace(/@.*/, ''));
    };
    const before = await names();
    const running = runBeside(30, () =>
      waitUntil('the results queue', async () => (await names()).includes('results')),
    );
    await running;
    await waitUntil('its end', async () => !(await names()).includes('results'));
    expect(before).toContain('runs');
    expect(await names()).toContain('describe');
    const runs = await (await fetch(`${dashboard.url}/runs`)).text();
    expect(runs).not.toContain('<form');
    const paused = await fetch(`${dashboard.url}/do/pause-account/any`, { method: 'POST' });
    expect(paused.status).toBe(405);
    await dashboard.close();
  });
});
