import { z } from 'zod';
import { plainShape } from '../message-body.js';
import { formatMessageId, type MessageFacts } from '../message-id.js';
import { makePrompts } from '../prompts.js';
import { bearerOf, fieldOf } from './request-parts.js';
import type { MessageView, Refusal, SimulatedDialect, SubmitFields } from './simulated-dialect.js';

const REFUSALS: Readonly<Record<Refusal, { status: number; type: string; code: string | null }>> = {
  invalid: { status: 400, type: 'invalid_request_error', code: null },
  token: { status: 401, type: 'invalid_request_error', code: 'invalid_api_key' },
  rate: { status: 429, type: 'requests', code: 'rate_limit_exceeded' },
  quota: { status: 429, type: 'insufficient_quota', code: 'insufficient_quota' },
  reject: { status: 400, type: 'invalid_request_error', code: 'content_policy_violation' },
  reject400: { status: 400, type: 'invalid_request_error', code: 'invalid_image_url' },
  missing: { status: 404, type: 'invalid_request_error', code: null },
  broken: { status: 500, type: 'server_error', code: null },
};

const imageSchema = z.object({ type: z.literal('image_url'), image_url: z.object({ url: z.string() }) });

/** The image among the parts of all messages. */
function imageIn(body: unknown): string | undefined {
  const messages = z.array(z.object({ content: z.unknown() })).safeParse(fieldOf(body, 'messages'));
  const parts = (messages.data ?? []).flatMap(({ content }): unknown[] =>
    Array.isArray(content) ? content : [],
  );
  return parts
    .map((part) => imageSchema.safeParse(part).data?.image_url.url)
    .find((url) => url !== undefined);
}

/** Without their keycaps: a model does not number like this. */
function promptsOf({ urlHash }: MessageFacts): string[] {
  return makePrompts(urlHash).map((prompt) => prompt.replace(/^\d\uFE0F\u20E3 /u, ''));
}

/** The four prompts in one answer, in one of the ways in which models write lists. */
function oneAnswer(facts: MessageFacts, { shape }: MessageView): string {
  const list = JSON.stringify(promptsOf(facts), null, 2);
  switch (plainShape(facts, shape)) {
    case 'flat':
      return list;
    case 'nested':
      return JSON.stringify({ prompts: promptsOf(facts) });
    case 'string':
      return `\`\`\`json\n${list}\n\`\`\``;
    case 'nested-string':
      return `Here are four prompts:\n\n\`\`\`\n${list}\n\`\`\`\nTell me if you want others.`;
    case 'seconds-date':
      return `Of course! ${list}`;
  }
}

function completionOf(facts: MessageFacts, view: MessageView, { choices }: SubmitFields): object {
  const isCut = facts.fate === 'expires';
  const texts = choices === 4 ? promptsOf(facts) : [oneAnswer(facts, view)];
  return {
    id: formatMessageId(facts),
    object: 'chat.completion',
    created: Math.floor(facts.submittedAt / 1000),
    model: 'simulator',
    choices: texts.map((text, index) => ({
      index,
      message: { role: 'assistant', content: isCut ? text.slice(0, 40) : text, refusal: null },
      logprobs: null,
      finish_reason: isCut ? 'length' : 'stop',
    })),
    usage: { prompt_tokens: 850, completion_tokens: 240, total_tokens: 1090 },
  };
}

/** Synchronous: no messages, no webhooks. */
export const openai: SimulatedDialect = {
  name: 'openai',
  submitPaths: ['/v1/chat/completions'],
  messagePaths: [],
  tokenOf: bearerOf,
  readSubmit: (body) => ({
    // Without a model there is no completion, whatever the image.
    url: typeof fieldOf(body, 'model') === 'string' ? imageIn(body) : undefined,
    choices: fieldOf(body, 'n'),
  }),
  accepted: completionOf,
  message: (facts, view) => completionOf(facts, view, { url: '' }),
  delivered: (facts, view) => completionOf(facts, view, { url: '' }),
  refusal: (why, message) => {
    const { status, type, code } = REFUSALS[why];
    return { status, body: { error: { message, type, param: null, code } } };
  },
  limitHeaders: ({ remaining, waitMs }) => ({
    'x-ratelimit-remaining-requests': String(remaining),
    'x-ratelimit-reset-requests': waitMs < 1000 ? `${Math.ceil(waitMs)}ms` : `${(waitMs / 1000).toFixed(3)}s`,
  }),
};
