import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { onAbandon } from './abandon.js';

export interface ProgramEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
}

/** A `bulk-describe` process; what it prints goes to files of its name in the round's folder. */
export class Program {
  readonly ended: Promise<ProgramEnd>;
  #isOver = false;

  private constructor(
    private readonly child: ChildProcess,
    readonly stdoutPath: string,
  ) {
    const forget = onAbandon(() => this.signal('SIGKILL'));
    this.ended = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (code, signal) => {
        this.#isOver = true;
        forget();
        resolve({ code, signal, stdout: readFileSync(stdoutPath, 'utf8') });
      });
    });
  }

  /** @param cli path of the built command line */
  static start(
    cli: string,
    args: readonly string[],
    options: { folder: string; name: string; env?: NodeJS.ProcessEnv | undefined },
  ): Program {
    const { folder, name, env } = options;
    const stdoutPath = join(folder, `${name}.stdout`);
    const files = [openSync(stdoutPath, 'w'), openSync(join(folder, `${name}.stderr`), 'w')] as const;
    const child = spawn(process.execPath, [cli, ...args], {
      cwd: folder,
      env: { PATH: process.env['PATH'], HOME: folder, TZ: 'UTC', DESCRIBE_API_TOKEN: 'any', ...env },
      stdio: ['ignore', ...files],
    });
    for (const file of files) closeSync(file);
    return new Program(child, stdoutPath);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }
}
