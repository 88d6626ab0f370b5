import { z } from 'zod';
import type { Prompts } from '../../shared/jobs.js';
import { type ApiCall, RejectedError, ResponseShapeError } from '../errors.js';
import {
  idSchema,
  type Message,
  parseMessage,
  readPrompts,
  reasonIn,
  refSchema,
  type Submitted,
} from '../shapes.js';
import { type Dialect, bearer } from './dialect.js';

/** The words of a dialect whose messages have a `status`; case does not count. */
export interface StatusWords {
  readonly working: readonly string[];
  readonly completed: readonly string[];
  readonly failed: readonly string[];
  readonly idFields: readonly string[];
  /** Where the prompts may be, the likeliest first; `a.b` is within an object. */
  readonly promptFields: readonly string[];
}

const objectSchema = z.looseObject({});
const contentSchema = z.union([z.string(), z.array(z.string())]);

function fieldOf(body: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => {
    const object = objectSchema.safeParse(value);
    return object.success && Object.hasOwn(object.data, key) ? object.data[key] : undefined;
  }, body);
}

function promptsIn(body: unknown, fields: readonly string[]): Prompts | undefined {
  for (const field of fields) {
    const content = contentSchema.safeParse(fieldOf(body, field)).data;
    const prompts = content === undefined ? undefined : readPrompts(content);
    if (prompts !== undefined) return prompts;
  }
  return undefined;
}

function stateOf(body: unknown, words: StatusWords): 'working' | 'completed' | 'failed' | undefined {
  const status = z.string().safeParse(fieldOf(body, 'status')).data?.trim().toLowerCase();
  const states = ['working', 'completed', 'failed'] as const;
  return states.find((state) => words[state].some((word) => word.toLowerCase() === status));
}

/**
 * Reads a message by its status word. One without a word of the dialect is read in the shapes of `thenextleg`,
 * whose relatives all of them are.
 * @throws {ResponseShapeError} when it is neither
 */
export function readStatusMessage(
  body: unknown,
  messageId: string,
  call: ApiCall,
  words: StatusWords,
): Message {
  switch (stateOf(body, words)) {
    case undefined:
      return parseMessage(body, messageId, call);
    case 'failed':
      return { status: 'incomplete', reason: reasonIn(body) ?? 'the API says that it failed' };
    case 'working': {
      const progress = Number.parseFloat(String(fieldOf(body, 'progress'))) || 0;
      return { status: 'working', progress: Math.min(99, Math.max(0, progress)) };
    }
    case 'completed': {
      const prompts = promptsIn(body, words.promptFields);
      if (prompts === undefined)
        throw new ResponseShapeError(call, 'a completed message with four prompts', body);
      return { status: 'completed', messageId, prompts, ref: refSchema.parse(fieldOf(body, 'ref')) };
    }
  }
}

/**
 * Reads the answer to a submit: a message with its id, mostly one that has just begun.
 * @throws {RejectedError} when it failed without a message; {ResponseShapeError} when there is no id
 */
export function readStatusSubmitted(body: unknown, call: ApiCall, words: StatusWords): Submitted {
  const ids = words.idFields.map((field) => idSchema.safeParse(fieldOf(body, field)).data);
  const messageId = ids.find((id) => id !== undefined);
  const state = stateOf(body, words);
  if (messageId === undefined) {
    if (state === 'failed')
      throw new RejectedError(call, { status: 200, reason: reasonIn(body) ?? 'it failed' });
    throw new ResponseShapeError(call, `an answer to a submit, with a ${words.idFields.join(' or ')}`, body);
  }
  if (state !== 'completed' || promptsIn(body, words.promptFields) === undefined) return { messageId };
  const message = readStatusMessage(body, messageId, call, words);
  return { messageId, ...(message.status === 'completed' && { completed: message }) };
}

/** Its messages have no status word. */
const THENEXTLEG_WORDS: StatusWords = {
  ...{ working: [], completed: [], failed: [], promptFields: [] },
  idFields: ['messageId'],
};

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
  submitBody: ({ url, ref, webhookOverride }) => ({ url, ref, webhookOverride }),
  readSubmitted: (body, call) => readStatusSubmitted(body, call, THENEXTLEG_WORDS),
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
  submitBody: ({ url, ref, webhookOverride }) => ({ url, ref, webhookOverride }),
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
  submitBody: ({ url, webhookOverride }) => ({ imgUrl: url, callback: webhookOverride }),
  readSubmitted: (body, call) => readStatusSubmitted(unwrapped(body), call, LEGNEXT_WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(unwrapped(body), messageId, call, LEGNEXT_WORDS),
  statusIn: (body) =>
    wrappedSchema.safeParse(body).success ? undefined : errorSchema.safeParse(body).data?.code,
} as const satisfies Dialect;
