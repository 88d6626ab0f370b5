import { existsSync, statfsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Tests make tens of thousands of small files, and wait for each; in memory, where that has room for them, nothing waits. */
const IN_MEMORY = '/dev/shm';
const NEEDED_BYTES = 2e9;

function hasRoom(folder: string): boolean {
  if (!existsSync(folder)) return false;
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize > NEEDED_BYTES;
}

export default defineConfig({
  test: {
    env: process.env['TMPDIR'] === undefined && hasRoom(IN_MEMORY) ? { TMPDIR: IN_MEMORY } : {},
    globalSetup: ['test/global-setup.ts'],
    include: ['test/**/*.test.ts'],
    // Tests wait more than they compute; more of them at once would only wait for each other.
    maxWorkers: 3 * availableParallelism(),
    // Longer than what tests wait for, so that one that waits in vain says for what.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
