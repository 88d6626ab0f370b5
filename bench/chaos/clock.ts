import { execFileSync } from 'node:child_process';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The library that gives a process another time; undefined where Debian's `faketime` is not installed. */
export const fakeTimeLibrary: string | undefined = findLibrary();

function findLibrary(): string | undefined {
  try {
    const env = execFileSync('faketime', ['-m', '-f', '+0', 'printenv', 'LD_PRELOAD'], { encoding: 'utf8' });
    return env.trim();
  } catch {
    return undefined;
  }
}

/** The wall clock of a round's runs, which can jump while they run; their monotonic clocks do not. */
export class Clock {
  readonly #path: string;

  constructor(private readonly folder: string) {
    this.#path = join(folder, 'clock');
    this.jump(0);
  }

  /** The clock is so many seconds ahead of the machine's from now on. */
  jump(seconds: number): void {
    const next = join(this.folder, 'clock.next');
    writeFileSync(next, `${seconds < 0 ? '' : '+'}${seconds}s\n`);
    // Whoever reads it meanwhile reads one of the two.
    renameSync(next, this.#path);
  }

  /** For the processes that are to have it. */
  get env(): NodeJS.ProcessEnv {
    if (fakeTimeLibrary === undefined) return {};
    return {
      LD_PRELOAD: fakeTimeLibrary,
      FAKETIME_TIMESTAMP_FILE: this.#path,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    };
  }
}
