import { z } from 'zod';
import type { Kind } from '../shared/queue/registry.js';
import { runRequestSchema, runStopSchema } from './run-request.js';

/** What a server has executed: what it takes to execute it again. */
const keptRequestSchema = z.object({
  run: z.string(),
  /** With the output's path as it was at that time. */
  request: runRequestSchema,
  /** The folder of the server that executed it. */
  root: z.string(),
  /** Epoch milliseconds; undefined while it goes on. */
  endedAt: z.number().optional(),
  /** Why it ended before its time. */
  stop: runStopSchema.optional(),
});

export type KeptRequest = z.infer<typeof keptRequestSchema>;

/** The requests of the last month by their runs, which can be retried without their command being given again. */
export const KEPT_REQUESTS: Kind<KeptRequest> = {
  group: 'requests',
  schema: keptRequestSchema,
  ttlMs: 30 * 24 * 3_600_000,
};
