import { z } from 'zod';
import { idSchema } from '../shapes.js';
import type { Dialect } from './dialect.js';
import { readStatusMessage, readStatusSubmitted, type StatusWords } from './status-message.js';

const WORDS: StatusWords = {
  working: ['pending', 'staged', 'processing'],
  completed: ['completed'],
  failed: ['failed'],
  idFields: ['job_id'],
  promptFields: ['output.prompts', 'output.promptEn', 'output.description', 'output.finalPrompt'],
};

const noJobSchema = z.union([z.null(), z.string().regex(/^\s*$/)]).optional();
const httpErrorSchema = z.int().min(400).max(599);

/** An error without a job (or with one that is null or empty): `code` is an HTTP status. */
const errorSchema = z.object({
  code: z.union([httpErrorSchema, z.string().trim().regex(/^\d+$/).transform(Number).pipe(httpErrorSchema)]),
  job_id: noJobSchema,
});

const wrappedSchema = z.object({ job_id: noJobSchema, data: z.looseObject({ job_id: idSchema }) });

/** The job itself, where it is within `data`. */
function unwrapped(body: unknown): unknown {
  return wrappedSchema.safeParse(body).data?.data ?? body;
}

function rootOf(base: string): string {
  return `${base.replace(/\/api(\/v1)?$/, '')}/api/v1`;
}

/** Legnext: jobs with a status word; no `ref`, and the webhook is called `callback`. */
export const legnext = {
  name: 'legnext',
  hosts: ['api.legnext.ai'],
  api: 'https://api.legnext.ai',
  submitUrl: (base) => `${rootOf(base)}/describe`,
  messageUrl: (base, messageId) => `${rootOf(base)}/job/${encodeURIComponent(messageId)}`,
  credentials: (token) => ({ 'x-api-key': token }),
  givesRefs: false,
  submitBody: ({ url, webhookOverride }) => ({
    imgUrl: url,
    ...(webhookOverride !== undefined && { callback: webhookOverride }),
  }),
  readSubmitted: (body, call) => readStatusSubmitted(unwrapped(body), call, WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(unwrapped(body), messageId, call, WORDS),
  statusIn: (body) =>
    wrappedSchema.safeParse(body).success ? undefined : errorSchema.safeParse(body).data?.code,
} as const satisfies Dialect;
