import { z } from 'zod';
import { idSchema, parseMessage, parseSubmitted } from '../shapes.js';
import { type Dialect, type SubmitRequest, bearer } from './dialect.js';
import { type StatusWords, readStatusMessage, readStatusSubmitted } from './status-message.js';

/** A submit of the dialects that have refs. */
function refedBody({ url, ref, webhookOverride }: SubmitRequest): Record<string, unknown> {
  return {
    url,
    ...(ref !== undefined && { ref }),
    ...(webhookOverride !== undefined && { webhookOverride }),
  };
}

/** The protocol of docs/describe-api.md, and that several services speak. */
export const thenextleg = {
  name: 'thenextleg',
  hosts: ['api.thenextleg.io'],
  api: 'https://api.thenextleg.io/v2',
  submitUrl: (base) => `${base}/describe`,
  messageUrl: (base, messageId) => `${base}/message/${encodeURIComponent(messageId)}`,
  credentials: bearer,
  getTokenParameter: 'authToken',
  expireParameter: 'expireMins',
  givesRefs: true,
  submitBody: refedBody,
  readSubmitted: parseSubmitted,
  readMessage: parseMessage,
} as const satisfies Dialect;

const IMAGINEPRO_WORDS: StatusWords = {
  working: ['QUEUED', 'PROCESSING'],
  completed: ['DONE'],
  failed: ['FAIL', 'FAILED', 'CANCELLED', 'CANCELED'],
  idFields: ['messageId'],
  promptFields: ['content', 'prompts', 'description', 'prompt', 'response'],
};

/** The service has two generations of paths: a base URL that ends in `/nova` asks for the newer ones. */
function pathsOf(base: string): { readonly root: string; readonly isNova: boolean } {
  const [, root = base, family] = /^(.*?)(?:\/api\/v1)?(?:\/(midjourney|nova))?$/.exec(base) ?? [];
  return { root: `${root}/api/v1`, isNova: family === 'nova' };
}

/** ImaginePro: messages with a status word; else close to `thenextleg`, whose shapes it is given as well. */
export const imaginepro = {
  name: 'imaginepro',
  hosts: ['api.imaginepro.ai', 'api.mymidjourney.ai'],
  api: 'https://api.imaginepro.ai',
  submitUrl: (base) => {
    const { root, isNova } = pathsOf(base);
    return `${root}/${isNova ? 'nova' : 'midjourney'}/describe`;
  },
  messageUrl: (base, messageId) => {
    const { root, isNova } = pathsOf(base);
    return `${root}/${isNova ? 'message/fetch' : 'midjourney/message'}/${encodeURIComponent(messageId)}`;
  },
  credentials: bearer,
  givesRefs: true,
  submitBody: refedBody,
  readSubmitted: (body, call) => readStatusSubmitted(body, call, IMAGINEPRO_WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(body, messageId, call, IMAGINEPRO_WORDS),
} as const satisfies Dialect;

const LEGNEXT_WORDS: StatusWords = {
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
  readSubmitted: (body, call) => readStatusSubmitted(unwrapped(body), call, LEGNEXT_WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(unwrapped(body), messageId, call, LEGNEXT_WORDS),
  statusIn: (body) =>
    wrappedSchema.safeParse(body).success ? undefined : errorSchema.safeParse(body).data?.code,
} as const satisfies Dialect;
