import { afterEach } from 'vitest';
import { startAccountWorker } from '../../src/run/account-worker.js';
import { RootFolder } from '../../src/service/root-folder.js';
import { enqueueRun } from '../../src/service/enqueue-run.js';
import type { RunOutcome, RunRequest } from '../../src/service/run-request.js';
import type { RunsServerOptions, ServerEvent } from '../../src/service/running-request.js';
import { RunsServer } from '../../src/service/server.js';
import { silentLogger } from '../../src/shared/log.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { UndoStack } from '../../src/shared/undo.js';
import { RunFixture, FAST } from './run-fixture.js';
import type { OpenFixture } from './queues.js';

/** A server in the test's own process, and what it has told. */
export interface TestServer {
  readonly server: RunsServer;
  readonly events: readonly ServerEvent[];
  readonly outcomes: () => RunOutcome[];
}

/** Whether a run has ended so many times. */
export function isOver(events: readonly ServerEvent[], run: string, times = 1): boolean {
  return (
    events.filter((event) => event.type === 'over' && event.outcome.receipt?.run === run).length >= times
  );
}

/** A run fixture with servers, workers and connections that end with each test, before what they stand on. */
export class ServerFixture {
  readonly #undo = new UndoStack();
  readonly #logger = silentLogger();

  private constructor(readonly fixture: RunFixture) {}

  /** Makes one for the suite that is being defined. */
  static forSuite(openQueue: OpenFixture): ServerFixture {
    const servers = new ServerFixture(RunFixture.forSuite(openQueue));
    // Of two hooks the one that was registered last runs first.
    afterEach(() => servers.#undo.release());
    return servers;
  }

  async connect(): Promise<QueueConnection> {
    const connection = await this.fixture.queue.connect();
    this.#undo.defer(() => connection.close());
    return connection;
  }

  /** A server for the fixture's folder, queue and API. */
  async startServer(options: Partial<RunsServerOptions> = {}): Promise<TestServer> {
    const events: ServerEvent[] = [];
    const { workspace, queue, simulator } = this.fixture;
    const server = await RunsServer.start({
      connection: await this.connect(),
      root: await RootFolder.open(workspace.path),
      queue: queue.url,
      api: { api: simulator.url },
      env: process.env,
      logger: this.#logger,
      timing: { tickMs: 50 },
      lateResultsEveryMs: 100,
      onEvent: (event) => events.push(event),
      ...options,
    });
    this.#undo.defer(() => server.stop());
    const outcomes = () => events.flatMap((event) => (event.type === 'over' ? [event.outcome] : []));
    return { server, events, outcomes };
  }

  /** Asks a server for a run. @returns when it has begun */
  async enqueue(request: RunRequest) {
    const connection = await this.connect();
    const begun = await enqueueRun(connection, request, { signal: AbortSignal.timeout(60_000) });
    if (begun.kind !== 'begun') throw new Error(begun.kind);
    return begun;
  }

  async startWorker(limits = FAST): Promise<void> {
    const options = { api: this.fixture.simulator.url, token: 'any', limits };
    const about = { logger: this.#logger, onEvent: () => undefined };
    await startAccountWorker(await this.connect(), options, this.#undo, about);
  }
}
