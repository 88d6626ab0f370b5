import { z } from 'zod';

const count = z.number().int().nonnegative();

/** What a describe job has to hold before anything is done with it: anybody who reaches the queue can put anything in. */
const describeJobSchema = z.looseObject({
  // A run's id: a queue is named after it.
  run: z.string().regex(/^[a-z][a-z0-9]{11}$/),
  url: z.string().min(1),
  row: z.number(),
  maxAttempts: z.number().int().positive(),
  deadlineMs: z.number().positive(),
  submits: count,
  polls: count,
  maybePaid: count,
  attempts: count,
  orderlyStarts: count,
  messageId: z.string().optional(),
  lastMessageId: z.string().optional(),
});

/** Why a job's data is none of a describe job; undefined when it is. */
export function notDescribable(data: unknown): string | undefined {
  const parsed = describeJobSchema.safeParse(data);
  if (parsed.success) return undefined;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join('.') ?? '';
  return `this is no describe job, and nothing was submitted for it: ${where === '' ? '' : `${where}: `}${issue?.message ?? ''}`;
}
