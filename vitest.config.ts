import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    globalSetup: ['test/global-setup.ts'],
    include: ['test/**/*.test.ts'],
    // Tests wait more than they compute.
    maxWorkers: 5,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
