import { z } from 'zod';
import type { Prompts } from '../shared/jobs.js';
import { type ApiCall, ResponseShapeError } from './errors.js';

export interface Submitted {
  readonly messageId: string;
  /** The outcome itself, where the service answers with it: there is nothing to be polled. */
  readonly completed?: CompletedMessage | undefined;
  /** For how many milliseconds the service says that it will take no other submit. */
  readonly restMs?: number | undefined;
}

export interface CompletedMessage {
  readonly status: 'completed';
  readonly messageId: string;
  /** The four prompts; with an `AnswerShape` of one's own the value of each of its columns. */
  readonly prompts: Prompts;
  readonly ref?: string | undefined;
  /** What a model says that the answer cost. */
  readonly usage?: Usage | undefined;
}

export interface Usage {
  readonly inputTokens: number;
  readonly outputTokens: number;
}

/**
 * What the API made of a submit so far; `progress` is 0..99, `incomplete` means that it gave up: the message has
 * expired, or failed for a reason.
 */
export type Message =
  | { readonly status: 'working'; readonly progress: number }
  | { readonly status: 'incomplete'; readonly reason?: string | undefined }
  | CompletedMessage;

export const idSchema = z.union([z.string(), z.number()]).transform(String).pipe(z.string().trim().min(1));

// Dropped when it is odd: prompts that are paid for are not thrown away over it. The service's dates are not read at all.
export const refSchema = idSchema.optional().catch(undefined);

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

const promptsSchema = z.union([z.string(), z.array(z.string())]).transform((content, context) => {
  const prompts = readPrompts(content);
  if (prompts) return prompts;
  context.addIssue({ code: 'custom', message: 'not four prompts' });
  return z.NEVER;
});

const describedSchema = z.object({ content: promptsSchema, ref: refSchema });
const nestedSchema = z.object({ response: describedSchema }).transform(({ response }) => response);
const completedSchema = z.union([describedSchema, nestedSchema]);

const progressSchema = z.object({
  progress: z.union([
    z.number(),
    z.literal('incomplete'),
    z
      .string()
      .regex(/^\d+(\.\d+)?%?$/)
      .transform(parseFloat),
  ]),
});

const reasonSchema = z.union([
  z.string().trim().min(1),
  z.object({ message: z.string().trim().min(1) }).transform(({ message }) => message),
  z.object({ raw_message: z.string().trim().min(1) }).transform((error) => error.raw_message),
]);
const REASON_KEYS = [
  'msg',
  'message',
  'error',
  'raw_message',
  'detail',
  'failReason',
  'description',
] as const;

/** Whether a body says `success: false`, be it as a text. */
export function isRefusal(body: unknown): boolean {
  // Asked of every answer: a schema that does not match takes the time of several that do.
  if (typeof body !== 'object' || body === null || !('success' in body)) return false;
  const { success } = body;
  return success === false || (typeof success === 'string' && success.trim().toLowerCase() === 'false');
}

/** The reason in a refusal or an error body: the first of `msg`, `message`, `error` and the like that is a text. It may be in a list. */
export function reasonIn(body: unknown): string | undefined {
  if (Array.isArray(body)) return body.length === 0 ? undefined : reasonIn(body[0]);
  const reasons = z.looseObject({}).safeParse(body);
  if (!reasons.success) return undefined;
  return REASON_KEYS.map((key) => reasonSchema.safeParse(reasons.data[key]).data).find((text) => text);
}

/**
 * Reads the answer of `GET /message/<id>`, in any of its shapes.
 * @throws {ResponseShapeError} when it is none of them
 */
export function parseMessage(body: unknown, messageId: string, call: ApiCall): Message {
  const progress = progressSchema.safeParse(body).data?.progress ?? 100;
  if (progress === 'incomplete') return { status: 'incomplete' };
  if (progress < 100) return { status: 'working', progress: Math.max(0, progress) };
  const completed = completedSchema.safeParse(body);
  if (!completed.success) {
    throw new ResponseShapeError(
      call,
      'a message: progress 0..99, "incomplete", or content of four prompts',
      body,
    );
  }
  const { content, ref } = completed.data;
  return { status: 'completed', messageId, prompts: content, ref };
}
