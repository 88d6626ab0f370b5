import { z } from 'zod';
import type { Receipt } from '../run/receipt.js';
import { parseJson } from '../shared/parse-json.js';
import type { SharedStore } from '../shared/queue/store.js';
import type { RunOutcome } from './run-request.js';

/*
 * How requests ended whose job their home had lost: it was frozen, or the queue was away, for longer than the job's lock
 * lasts. The home that is given the job next ends it so, and neither executes nor tells it again.
 */

const receiptSchema = z.object({
  run: z.string(),
  manifest: z.string(),
  output: z.string(),
  failures: z.string(),
  rows: z.number(),
  described: z.number(),
  resumed: z.number(),
  copied: z.number(),
  failed: z.number(),
  remaining: z.number(),
  extra: z.number(),
  submits: z.number(),
  polls: z.number(),
  reattached: z.number(),
  maybePaidTwice: z.number(),
  rescued: z.number(),
  seconds: z.number(),
  complete: z.boolean(),
  balanced: z.boolean(),
}) satisfies z.ZodType<Receipt>;

const outcomeSchema = z.object({
  outcome: z.enum(['ended', 'skipped', 'refused']),
  exitCode: z.number(),
  reason: z.string().optional(),
  receipt: receiptSchema.optional(),
}) satisfies z.ZodType<RunOutcome>;

const GROUP = 'request-ends';
const KEPT_MS = 24 * 3_600_000;

/** Keeps how a request has ended, once everybody has been told. */
export async function keepEnd(store: SharedStore, job: string, outcome: RunOutcome): Promise<void> {
  await store.announce(GROUP, job, JSON.stringify(outcome), KEPT_MS);
}

/** How a request has ended, for the one who ends its job. Once: whoever puts that job back wants it executed. */
export async function takeEnd(store: SharedStore, job: string): Promise<RunOutcome | undefined> {
  const text = (await store.members(GROUP)).get(job);
  if (text === undefined) return undefined;
  await store.withdraw(GROUP, job);
  return outcomeSchema.safeParse(parseJson(text)).data;
}
