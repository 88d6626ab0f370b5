import { z } from 'zod';
import { type ApiCall, DescribeApiError, RejectedError, ResponseShapeError } from '../errors.js';
import { type Dialect, type Message, type Refused, type SubmitRequest } from './dialect.js';
import { type StatusWords, idSchema, readStatusMessage, readStatusSubmitted } from './polled.js';

const WORDS: StatusWords = {
  working: ['NOT_START', 'SUBMITTED', 'IN_PROGRESS', 'MODAL', ''],
  completed: ['SUCCESS'],
  failed: ['FAILURE', 'CANCEL'],
  idFields: ['result'],
  promptFields: ['properties.finalPrompt', 'promptEn', 'prompt'],
};

/** Submitted; exists already, under the id that is given; queued. */
const ACCEPTED: ReadonlySet<number> = new Set([1, 21, 22]);

/** What the other codes of an answer say. None of these submits is charged. */
const REFUSED: Readonly<Record<number, Refused>> = {
  // No account is free, or connected: for no image.
  3: { status: 503 },
  // Invalid. Gateways say it of anything that is wrong: the words are left.
  4: { status: 400 },
  // The queue is full, whatever `result` says.
  23: { status: 429 },
  // Banned words.
  24: { about: 'image' },
  // A gateway's group of channels is busy.
  30: { status: 429 },
};
/** A failure (9), or what nobody has documented. */
const FAILED: Refused = { about: 'moment' };

const codeSchema = z.object({
  code: z.union([
    z.int(),
    z
      .string()
      .regex(/^-?\d+$/)
      .transform(Number),
  ]),
  description: z.string().catch(''),
});

/** @param status of the answer: a gateway's own errors are a 400, and what says more than that is left to it */
function refusedBy(body: unknown, status: number): Refused | undefined {
  const answer = codeSchema.safeParse(body).data;
  if (answer === undefined || ACCEPTED.has(answer.code) || (status >= 300 && status !== 400))
    return undefined;
  if (/\btask_(no|not)_found\b/.test(answer.description)) return { status: 404 };
  return REFUSED[answer.code] ?? FAILED;
}

function readTask(body: unknown, messageId: string, call: ApiCall): Message {
  if (body === null) throw new RejectedError(call, { status: 404, reason: 'there is no such task' });
  const message = readStatusMessage(body, messageId, call, WORDS);
  if (message.status !== 'completed') return message;
  const prompts = message.prompts.map((prompt) =>
    typeof prompt === 'string' ? withoutLinks(prompt) : prompt,
  );
  return { ...message, prompts };
}

/** More would be near the longest answer that is read. */
const MOST_LISTED = 50;
const listedSchema = z.looseObject({ id: idSchema });

/** One that cannot be read is left out: asked for alone, it says what is wrong with it. */
function readTasks(body: unknown, call: ApiCall): ReadonlyMap<string, Message> {
  if (!Array.isArray(body)) throw new ResponseShapeError(call, 'a list of tasks', body);
  const messages = new Map<string, Message>();
  for (const listed of body) {
    const task = listedSchema.safeParse(listed).data;
    if (task === undefined) continue;
    try {
      messages.set(task.id, readTask(task, task.id, call));
    } catch (error) {
      if (!(error instanceof DescribeApiError)) throw error;
    }
  }
  return messages;
}

function withoutLinks(prompt: string): string {
  return prompt.replace(/!?\[([^[\]]*)\]\(\s*<?https?:\/\/[^()\s]*(?:\([^()\s]*\)[^()\s]*)*>?\s*\)/gi, '$1');
}

function submitBody({ url, webhookOverride }: SubmitRequest): Record<string, unknown> {
  const image = url.startsWith('data:') ? { base64: url } : { link: url };
  return { ...image, botType: 'MID_JOURNEY', notifyHook: webhookOverride };
}

/** The base URL may end in `/mj`; a mode of new-api (`/mj-fast`) stays before it. */
function rootOf(base: string): string {
  return `${base.replace(/\/mj(\/submit\/describe)?$/, '')}/mj`;
}

/** The Midjourney proxy (novicezk, trueai-org), and the gateways that resell it (new-api): tasks with a status word, and no `ref`. */
export const mj = {
  name: 'mj',
  hosts: [],
  api: 'http://127.0.0.1:8080',
  submitUrl: (base) => `${rootOf(base)}/submit/describe`,
  messageUrl: (base, messageId) => `${rootOf(base)}/task/${encodeURIComponent(messageId)}/fetch`,
  isTokenOptional: true,
  takesData: true,
  submitBody,
  // Its status word is the task's: without an id nobody knows whether there is one that is paid for.
  readSubmitted: (body, call) => readStatusSubmitted(body, call, { ...WORDS, completed: [], failed: [] }),
  readMessage: readTask,
  list: {
    most: MOST_LISTED,
    url: (base) => `${rootOf(base)}/task/list-by-condition`,
    body: (ids) => ({ ids }),
    read: readTasks,
  },
  refusedBy,
  isQuota: (body) =>
    /\b(quota_not_enough|insufficient_(user_)?quota)\b/.test(
      codeSchema.safeParse(body).data?.description ?? '',
    ),
} as const satisfies Dialect;
