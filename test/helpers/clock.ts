import { execFileSync } from 'node:child_process';
import { renameSync, writeFileSync } from 'node:fs';

const NO_FAKETIME =
  'the clock does not jump here: there is no faketime (Debian has it in its package of that name)';

/** The library that gives a process another time; undefined where it is not installed. */
export const fakeTimeLibrary: string | undefined = findLibrary();

function findLibrary(): string | undefined {
  try {
    const args = ['-m', '-f', '+0', 'printenv', 'LD_PRELOAD'];
    return execFileSync('faketime', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    if (process.env['BULK_DESCRIBE_REQUIRE_FAKETIME']) throw new Error(NO_FAKETIME);
    process.stderr.write(`${NO_FAKETIME}\n`);
    return undefined;
  }
}

/** A wall clock for processes, which can jump while they run; their monotonic clocks do not. */
export class Clock {
  /** @param path of the file from which the processes read how far it is ahead */
  constructor(private readonly path: string) {
    this.jump(0);
  }

  /** The clock is so many seconds ahead of the machine's from now on. */
  jump(seconds: number): void {
    const next = `${this.path}.next`;
    writeFileSync(next, `${seconds < 0 ? '' : '+'}${seconds}s\n`);
    // Whoever reads it meanwhile reads one of the two.
    renameSync(next, this.path);
  }

  /** For the processes that are to have it. */
  get env(): NodeJS.ProcessEnv {
    if (fakeTimeLibrary === undefined) return {};
    return {
      LD_PRELOAD: fakeTimeLibrary,
      FAKETIME_TIMESTAMP_FILE: this.path,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    };
  }
}
