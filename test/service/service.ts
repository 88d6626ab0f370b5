import { type CliProcess, startCli } from '../helpers/cli.js';
import { waitUntil } from '../helpers/wait-until.js';
import type { Workspace } from '../helpers/workspace.js';

/** Starts commands on one queue and one API; what is still running when the test ends is killed. */
export class Service {
  readonly #started: CliProcess[] = [];

  constructor(
    private readonly workspace: Workspace,
    private readonly queue: string,
    /** Variables of all its processes. */
    private readonly env: NodeJS.ProcessEnv = {},
  ) {}

  start(command: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): CliProcess {
    const started = startCli([command, ...args], {
      cwd: this.workspace.path,
      env: { QUEUE_URL: this.queue, DESCRIBE_API_TOKEN: 'any', ...this.env, ...env },
    });
    this.#started.push(started);
    return started;
  }

  async end(): Promise<void> {
    for (const { child } of this.#started) child.kill('SIGKILL');
    await Promise.all(this.#started.map(({ ended }) => ended));
  }
}

/** Waits until a process has written this to stderr, and fails with all of it otherwise. */
export async function untilSaid(started: CliProcess, what: RegExp, deadlineMs = 30_000): Promise<void> {
  await waitUntil(`${String(what)} on stderr`, () => what.test(started.stderr()), deadlineMs).catch(
    (error: unknown) => {
      throw new Error(`it said:\n${started.stderr()}${started.stdout()}`, { cause: error });
    },
  );
}

/** Where a process says that it listens: its pages, or its health. */
export async function urlOf(started: CliProcess): Promise<string> {
  const url = () => /http:\/\/127\.0\.0\.1:\d+/.exec(started.stdout() + started.stderr())?.[0];
  await waitUntil('the URL that it listens at', () => url() !== undefined);
  return url() ?? '';
}

/** What a process with `--health-port 0` answers. */
export async function health(
  started: Pick<CliProcess, 'stderr'>,
  path: string,
): Promise<{ status: number; body: string }> {
  const base = /health at (http:\/\/127\.0\.0\.1:\d+)/.exec(started.stderr())?.[1] ?? '';
  const answer = await fetch(`${base}/${path}`);
  return { status: answer.status, body: await answer.text() };
}
