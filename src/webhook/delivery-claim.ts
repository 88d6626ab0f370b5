import { z } from 'zod';
import { parseJson } from '../shared/parse-json.js';

/** What a delivery claims to be about; nothing of it is certain. */
export interface DeliveryClaim {
  /** A ref that was made here, see `CallbackKeys`. */
  readonly ref: string | undefined;
  readonly messageId: string | undefined;
  /** It says that its message is still worked on: there is nothing to ask for yet. */
  readonly isWorking?: true | undefined;
}

/** No service has others in an id, and not every store can hold control characters and lone surrogates. */
const ID = /^[^\p{Cc}\p{Cs}]{1,512}$/u;

const idSchema = z
  .union([z.string(), z.int().nonnegative().transform(String)])
  .pipe(z.string().trim().regex(ID))
  .optional()
  .catch(undefined);

/** Where the services of this family put the two facts that matter; all else is read from the API. */
const claimSchema = z.object({
  ref: idSchema,
  originatingMessageId: idSchema,
  messageId: idSchema,
  job_id: idSchema,
  jobId: idSchema,
  id: idSchema,
});

const bodySchema = z.intersection(
  claimSchema,
  z.object({
    // The words of `mj`, which calls at every change; the others call when a message is done.
    status: z.enum(['NOT_START', 'SUBMITTED', 'IN_PROGRESS', 'MODAL', '']).optional().catch(undefined),
    response: claimSchema.optional().catch(undefined),
    data: claimSchema.optional().catch(undefined),
  }),
);

/** What a body says that it is about; undefined when it is no JSON object. */
export function readClaim(body: string): DeliveryClaim | undefined {
  const json = parseJson(body);
  const claim = bodySchema.safeParse(json);
  if (!claim.success || Array.isArray(json)) return undefined;
  const parts = [claim.data, claim.data.response, claim.data.data];
  const first = (read: (part: z.infer<typeof claimSchema>) => string | undefined) =>
    parts.map((part) => part && read(part)).find((id) => id !== undefined);
  return {
    ...(claim.data.status !== undefined && { isWorking: true }),
    ref: first(({ ref }) => ref),
    messageId: first(
      (part) => part.originatingMessageId ?? part.messageId ?? part.job_id ?? part.jobId ?? part.id,
    ),
  };
}
