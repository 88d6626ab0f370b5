import { z } from 'zod';
import type { Prompts } from '../../shared/jobs.js';
import { type ApiCall, RejectedError, ResponseShapeError } from '../errors.js';
import { readPrompts } from '../shapes.js';
import { type Message, type Submitted, idSchema, instantSchema, parseMessage, reasonIn } from '../shapes.js';

/** The words of a dialect whose messages have a `status`; case does not count. */
export interface StatusWords {
  readonly working: readonly string[];
  readonly completed: readonly string[];
  readonly failed: readonly string[];
  /** Where a message's id may be. */
  readonly idFields: readonly string[];
  /** Where the prompts may be, the likeliest first; `a.b` is within an object. */
  readonly promptFields: readonly string[];
}

const objectSchema = z.looseObject({});
const contentSchema = z.union([z.string(), z.array(z.string())]);
const statusSchema = z.object({ status: z.string() }).transform(({ status }) => status.trim().toLowerCase());
const progressSchema = z.object({ progress: z.coerce.number() }).transform(({ progress }) => progress);
const factsSchema = z.object({
  ref: idSchema.optional().catch(undefined),
  createdAt: instantSchema,
  updatedAt: instantSchema,
  meta: z
    .object({ created_at: instantSchema, ended_at: instantSchema })
    .partial()
    .optional()
    .catch(undefined),
});

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
  const status = statusSchema.safeParse(body).data;
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
      const progress = progressSchema.safeParse(body).data ?? 0;
      return { status: 'working', progress: Math.min(99, Math.max(0, progress)) };
    }
    case 'completed': {
      const prompts = promptsIn(body, words.promptFields);
      if (prompts === undefined)
        throw new ResponseShapeError(call, 'a completed message with four prompts', body);
      const facts = factsSchema.safeParse(body).data;
      return {
        status: 'completed',
        messageId,
        prompts,
        ref: facts?.ref,
        createdAt: facts?.createdAt ?? facts?.meta?.created_at,
        responseAt: facts?.updatedAt ?? facts?.meta?.ended_at,
      };
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
  const createdAt = factsSchema.safeParse(body).data?.createdAt;
  if (state !== 'completed' || promptsIn(body, words.promptFields) === undefined)
    return { messageId, createdAt };
  const message = readStatusMessage(body, messageId, call, words);
  return { messageId, createdAt, ...(message.status === 'completed' && { completed: message }) };
}
