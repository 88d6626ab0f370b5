import { type TestContext, afterAll, beforeAll, expect } from 'vitest';
import type { RunOptions } from '../../src/run/run-options.js';
import { type Simulator, type SimulatorOptions, startSimulator } from '../helpers/simulator.js';
import { embeddedFixture } from '../helpers/queues.js';
import { redisAvailable, startRedis } from '../helpers/redis.js';
import { Workspace } from '../helpers/workspace.js';
import { type EndedRun, expectBalanced, runToReceipt } from '../helpers/run-fixture.js';
import { type Script, type ScriptedApi, startScriptedApi } from './scripted-api.js';

/** A queue for a whole file, of the kind that is quicker. Its tests can run side by side: each has an API of its own. */
export class SharedQueue {
  /** For `--queue`. */
  url = '';

  static forFile(): SharedQueue {
    const sharedQueue = new SharedQueue();
    let end: () => Promise<void> = () => Promise.resolve();
    beforeAll(async () => {
      if (redisAvailable) {
        const redis = await startRedis();
        [sharedQueue.url, end] = [redis.url, () => redis.stop()];
        return;
      }
      const embedded = await embeddedFixture();
      [sharedQueue.url, end] = [embedded.url, () => embedded.cleanup()];
    });
    afterAll(() => end());
    return sharedQueue;
  }

  /** What one test needs; it goes with the test. */
  async fixture(test: Pick<TestContext, 'onTestFinished'>): Promise<ApiFixture> {
    const workspace = await Workspace.create();
    test.onTestFinished(() => workspace.remove());
    return new ApiFixture(workspace, this.url, test);
  }
}

/** A folder on the shared queue, and the APIs that a test starts. */
export class ApiFixture {
  constructor(
    readonly workspace: Workspace,
    readonly queue: string,
    private readonly test: Pick<TestContext, 'onTestFinished'>,
  ) {}

  async scripted(scripts: { submit?: Script; poll?: Script }): Promise<ScriptedApi> {
    const api = await startScriptedApi(scripts);
    this.test.onTestFinished(() => api.close());
    return api;
  }

  async simulate(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
    const simulator = await startSimulator({ latencyMs: 20, ...options });
    this.test.onTestFinished(() => simulator.close());
    return simulator;
  }

  /** Writes a manifest of these image URLs, one row each. */
  manifest(urls: readonly string[]): Promise<string> {
    return this.workspace.write('m.csv', `image\n${urls.map((url) => `${url}\n`).join('')}`);
  }

  /** Runs a manifest to `out.csv`; the account has to balance. */
  async run(options: Partial<RunOptions> & { manifest: string; api: string }): Promise<EndedRun> {
    const ended = await runToReceipt({ queue: this.queue, output: this.workspace.at('out.csv'), ...options });
    expectBalanced(ended);
    return ended;
  }

  /** The described image URLs, in order. */
  async described(): Promise<string[]> {
    return (await this.workspace.records('out.csv')).map((record) => record['image'] ?? '').sort();
  }
}

/** The calls of the receipt are those that the API has seen. */
export function expectCalls(run: EndedRun, api: { readonly submits: number; readonly polls: number }): void {
  const { submits, polls } = run.receipt;
  expect({ submits, polls }).toEqual({ submits: api.submits, polls: api.polls });
}

/** The same for a run that was stopped: polls may have been given up before they were sent. */
export function expectCallsUntilStop(
  run: EndedRun,
  api: { readonly submits: number; readonly polls: number },
  maxInFlight: number,
): void {
  const { submits, polls } = run.receipt;
  expect(submits).toBe(api.submits);
  expect(polls).toBeGreaterThanOrEqual(api.polls);
  expect(polls).toBeLessThanOrEqual(api.polls + maxInFlight);
}
