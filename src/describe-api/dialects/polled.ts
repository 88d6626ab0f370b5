import { z } from 'zod';
import { type ApiCall, RejectedError, ResponseShapeError } from '../errors.js';
import { reasonIn } from '../refusals.js';
import { type CompletedMessage, type Dialect, type Message, type Submitted } from './dialect.js';

export const idSchema = z.union([z.string(), z.number()]).transform(String).pipe(z.string().trim().min(1));

// Dropped when it is odd: prompts that are paid for are not thrown away over it. The service's dates are not read at all.
export const refSchema = idSchema.optional().catch(undefined);

/** An HTTP status in a body, be it as a text. */
export const failingStatusSchema = z
  .union([z.number(), z.string()])
  .transform(Number)
  .pipe(z.int().min(400).max(599));

/** A keycap digit: the digit, U+FE0F (which some senders leave out), U+20E3. It is numbering, not prompt. */
const LEADING_KEYCAP = /^[1-4]\uFE0F?\u20E3/u;

export function cleanPrompt(text: string): string {
  return text.trim().replace(LEADING_KEYCAP, '').trim();
}

function toPrompts(texts: readonly string[]): readonly string[] | undefined {
  const prompts = texts.map(cleanPrompt);
  return prompts.length !== 4 || prompts.every((prompt) => prompt === '') ? undefined : prompts;
}

/** Cuts before keycaps 1, 2, 3, 4 in this order, each the first that follows `before` after the one before it. */
function cutAtKeycaps(text: string, before: string): string[] | undefined {
  const starts: number[] = [];
  for (const digit of ['1', '2', '3', '4']) {
    const from = (starts.at(-1) ?? -1) + 1;
    const keycap = new RegExp(`(?<=${before})${digit}\\uFE0F?\\u20E3`, 'gu');
    keycap.lastIndex = from;
    const match = keycap.exec(text);
    if (!match) return undefined;
    starts.push(match.index);
  }
  return starts[0] === 0 ? starts.map((start, i) => text.slice(start, starts[i + 1])) : undefined;
}

/**
 * The four prompts of a message's `content`: a list of four, or one string with each behind its keycap.
 * Keycaps and outer white space are taken off, inner line breaks stay.
 * @returns undefined when there are not exactly four, or all are empty
 */
export function readPrompts(content: string | readonly string[]): readonly string[] | undefined {
  if (typeof content !== 'string' && content.length !== 1) return toPrompts(content);
  const text = (typeof content === 'string' ? content : (content[0] ?? '')).trim();
  // A prompt can speak of a keycap too: those at line starts are believed before those within a line.
  const texts = cutAtKeycaps(text, '^|[\\r\\n]\\s*') ?? cutAtKeycaps(text, '^|\\s');
  return texts && toPrompts(texts);
}

const objectSchema = z.looseObject({});
const contentSchema = z.union([z.string(), z.array(z.string())]);

/** @param path `a.b` is within an object */
function fieldOf(body: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => {
    const object = objectSchema.safeParse(value);
    return object.success && Object.hasOwn(object.data, key) ? object.data[key] : undefined;
  }, body);
}

function completedIn(
  body: unknown,
  messageId: string,
  fields: readonly string[],
): CompletedMessage | undefined {
  for (const field of fields) {
    const content = contentSchema.safeParse(fieldOf(body, field)).data;
    const prompts = content === undefined ? undefined : readPrompts(content);
    if (prompts === undefined) continue;
    return { status: 'completed', messageId, prompts, ref: refSchema.parse(fieldOf(body, 'ref')) };
  }
  return undefined;
}

const percentSchema = z.string().regex(/^\d+(\.\d+)?%?$/);
const progressSchema = z
  .union([z.number(), z.literal('incomplete'), percentSchema.transform(parseFloat)])
  .catch(100);

/**
 * Reads the answer of `GET /message/<id>`, in any of its shapes.
 * @throws {ResponseShapeError} when it is none of them
 */
export function parseMessage(body: unknown, messageId: string, call: ApiCall): Message {
  const progress = progressSchema.parse(fieldOf(body, 'progress'));
  if (progress === 'incomplete') return { status: 'incomplete' };
  if (progress < 100) return { status: 'working', progress: Math.max(0, progress) };
  const nested = fieldOf(body, 'response');
  const completed = completedIn(body, messageId, ['content']) ?? completedIn(nested, messageId, ['content']);
  if (completed !== undefined) return completed;
  const expected = 'a message: progress 0..99, "incomplete", or content of four prompts';
  throw new ResponseShapeError(call, expected, body);
}

/** The words of a dialect whose messages have a `status`; case does not count. */
export interface StatusWords {
  readonly working: readonly string[];
  readonly completed: readonly string[];
  readonly failed: readonly string[];
  readonly idFields: readonly string[];
  /** Where the prompts may be, the likeliest first; `a.b` is within an object. */
  readonly promptFields: readonly string[];
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
      const completed = completedIn(body, messageId, words.promptFields);
      if (completed !== undefined) return completed;
      throw new ResponseShapeError(call, 'a completed message with four prompts', body);
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
  const completed = state === 'completed' ? completedIn(body, messageId, words.promptFields) : undefined;
  return { messageId, ...(completed && { completed }) };
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

/** An error without a job (or with one that is null or empty): `code` is an HTTP status. */
const errorSchema = z.object({ code: failingStatusSchema, job_id: noJobSchema });

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
  submitBody: ({ url, webhookOverride }) => ({ imgUrl: url, callback: webhookOverride }),
  readSubmitted: (body, call) => readStatusSubmitted(unwrapped(body), call, LEGNEXT_WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(unwrapped(body), messageId, call, LEGNEXT_WORDS),
  statusIn: (body) =>
    wrappedSchema.safeParse(body).success ? undefined : errorSchema.safeParse(body).data?.code,
} as const satisfies Dialect;
