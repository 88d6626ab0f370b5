import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const NO_FAKETIME =
  'the clock does not jump here: there is no faketime (Debian has it in its package of that name)';

/** `$LIB` is for the dynamic linker: the folder of this machine's own libraries. */
const LIBRARY = '/usr/$LIB/faketime/libfaketimeMT.so.1';

/** The library that gives a process another time; undefined where it is not installed. */
export const fakeTimeLibrary: string | undefined = findLibrary();

/**
 * Hazard: the command `faketime` is no way to find it. It refuses to start where a process of the same id was killed before
 * it, and has left its semaphore; the library itself makes that one anew.
 */
function findLibrary(): string | undefined {
  const env = { ...process.env, LD_PRELOAD: LIBRARY, FAKETIME: '@2001-01-01 00:00:00' };
  const year = execFileSync('date', ['+%Y'], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  if (year.trim() === '2001') return LIBRARY;
  if (process.env['BULK_DESCRIBE_REQUIRE_FAKETIME']) throw new Error(NO_FAKETIME);
  process.stderr.write(`${NO_FAKETIME}\n`);
  return undefined;
}

const SHARED_MEMORY = '/dev/shm';

/** Removes what processes with another time have left in shared memory when they were killed. */
export function removeLeftClocks(): void {
  if (fakeTimeLibrary === undefined) return;
  for (const name of readdirSync(SHARED_MEMORY)) {
    const [, pid] = /^(?:sem\.faketime_sem|faketime_shm)_(\d+)$/.exec(name) ?? [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(SHARED_MEMORY, name), { force: true });
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
