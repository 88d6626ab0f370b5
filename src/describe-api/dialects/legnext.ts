import { z } from 'zod';
import type { Dialect } from './dialect.js';
import { readStatusMessage, readStatusSubmitted, type StatusWords } from './status-message.js';

const WORDS: StatusWords = {
  working: ['pending', 'staged', 'processing'],
  completed: ['completed'],
  failed: ['failed'],
  idFields: ['job_id'],
  promptFields: ['output.prompts', 'output.promptEn', 'output.description', 'output.finalPrompt'],
};

/** An error without a job: `code` is an HTTP status. */
const errorSchema = z.object({ code: z.int().min(400).max(599), job_id: z.undefined().optional() });

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
  readSubmitted: (body, call) => readStatusSubmitted(body, call, WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(body, messageId, call, WORDS),
  statusIn: (body) => errorSchema.safeParse(body).data?.code,
} as const satisfies Dialect;
