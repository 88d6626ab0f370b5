import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    globalSetup: ['test/global-setup.ts'],
    include: ['test/**/*.test.ts'],
    // Tests wait as much as they compute; more of them at once would only wait for each other.
    maxWorkers: 2 * availableParallelism(),
    // Longer than what tests wait for, so that one that waits in vain says for what.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
