import { z } from 'zod';

const rate = z.object({ count: z.number(), perMs: z.number() });

/** What helper processes are told; each uses what concerns it. */
const aboutSchema = z.object({
  latencyMs: z.number().default(0),
  latencySpread: z.number().default(0),
  seed: z.number().default(1),
  queue: z.string().default(''),
  api: z.string().default(''),
  limits: z.object({ rate, pollRate: rate, maxInFlight: z.number() }).optional(),
  jobs: z.number().default(0),
  name: z.string().default(''),
  concurrency: z.number().default(0),
});

/** Reads this process's only argument. */
export function readAbout(): z.infer<typeof aboutSchema> {
  return aboutSchema.parse(JSON.parse(process.argv[2] ?? '{}'));
}
