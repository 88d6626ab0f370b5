import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    globalSetup: ['test/global-setup.ts'],
    include: ['test/**/*.test.ts'],
    // Tests wait more than they compute.
    maxWorkers: 5,
    // Longer than what tests wait for, so that one that waits in vain says for what.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
