import { afterEach, beforeEach } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type CliEnd, type CliProcess, runCommand } from '../helpers/cli.js';
import type { OpenFixture, QueueFixture } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';
import { Service, untilSaid } from './service.js';

/** Limits that few tests wait for. */
export const LIMITS = ['--rate', '200/s', '--poll-rate', '500/s', '--max-in-flight', '5'];

/** What processes need around them: a folder, an API and a queue, new for each test. */
export class ProcessFixture {
  workspace!: Workspace;
  simulator!: Simulator;
  queue!: QueueFixture;
  service!: Service;

  /** Makes one for the suite that is being defined; its processes end with each test. */
  static forSuite(openQueue: OpenFixture, { latencyMs = 50 } = {}): ProcessFixture {
    const fixture = new ProcessFixture();
    beforeEach(async () => {
      fixture.queue = await openQueue();
      fixture.workspace = await Workspace.create();
      fixture.simulator = await startSimulator({ latencyMs });
      fixture.service = new Service(fixture.workspace, fixture.queue.url, {
        DESCRIBE_API_URL: fixture.simulator.url,
      });
    });
    afterEach(async () => {
      await fixture.service.end();
      await fixture.simulator.close();
      await fixture.workspace.remove();
    });
    return fixture;
  }

  /** Starts a server that is ready when this resolves. */
  async serve(...args: string[]): Promise<CliProcess> {
    const server = this.service.start('serve', [...LIMITS, ...args]);
    await untilSaid(server, /takes runs from/);
    return server;
  }

  /** Starts a worker that takes images when this resolves. */
  async work(): Promise<CliProcess> {
    const worker = this.service.start('worker', LIMITS);
    await untilSaid(worker, /limits of the account/);
    return worker;
  }

  /** A command that ends by itself; it knows of the queue alone. */
  command(...args: string[]): Promise<CliEnd> {
    return runCommand(args, { cwd: this.workspace.path, env: { QUEUE_URL: this.queue.url } });
  }

  /** The ids of a file's rows in order; none when there is no such file. */
  async ids(name: string): Promise<number[]> {
    const records = await this.workspace.records(name).catch(() => []);
    return records.map((record) => Number(record['id'])).sort((a, b) => a - b);
  }
}
