import { isWorking, plainShape, progressOf } from '../message-body.js';
import { formatMessageId, type MessageFacts } from '../message-id.js';
import { makePrompts } from '../prompts.js';
import { fieldOf, isoOf } from './request-parts.js';
import type { MessageView, Refusal, SimulatedDialect } from './simulated-dialect.js';

const STATUSES: Readonly<Record<Refusal, number>> = {
  invalid: 400,
  token: 401,
  rate: 429,
  quota: 402,
  reject: 200,
  reject400: 400,
  missing: 404,
  broken: 500,
};

function stateOf(facts: MessageFacts, { expireMins, nowMs }: MessageView): string {
  if (!isWorking(facts, expireMins, nowMs)) return facts.fate === 'completes' ? 'completed' : 'failed';
  const progress = progressOf(facts, nowMs);
  return progress < 10 ? 'pending' : progress < 20 ? 'staged' : 'processing';
}

function outputOf(facts: MessageFacts, { shape }: MessageView): object {
  const prompts = makePrompts(facts.urlHash);
  const promptEn = prompts.join('\n\n');
  // Some of its answers have the one text alone.
  const isText = plainShape(facts, shape) === 'string';
  return { promptEn, description: promptEn, finalPrompt: promptEn, prompts: isText ? [] : prompts };
}

function jobOf(facts: MessageFacts, view: MessageView): object {
  const status = stateOf(facts, view);
  const message = status === 'failed' ? 'Simulated: the job has failed' : '';
  return {
    job_id: formatMessageId(facts),
    model: 'midjourney',
    task_type: 'describe',
    status,
    output:
      status === 'completed'
        ? outputOf(facts, view)
        : { promptEn: '', description: '', finalPrompt: '', prompts: [] },
    meta: {
      created_at: isoOf(facts.submittedAt),
      started_at: '',
      ended_at: status === 'completed' ? isoOf(facts.submittedAt + facts.latencyMs) : '',
    },
    detail: null,
    logs: [],
    error: { code: message === '' ? 0 : 10_000, raw_message: message, message, detail: null },
  };
}

export const legnext: SimulatedDialect = {
  name: 'legnext',
  submitPaths: ['/api/v1/describe'],
  messagePaths: ['/api/v1/job/:id'],
  tokenOf: ({ headers }) => [headers['x-api-key']].flat()[0],
  readSubmit: (body) => ({ url: fieldOf(body, 'imgUrl'), webhook: fieldOf(body, 'callback') }),
  accepted: jobOf,
  message: jobOf,
  delivered: jobOf,
  refusal: (why, message) => {
    // A refusal can come with HTTP 200: the body's code is what counts.
    const code = why === 'reject' ? 400 : STATUSES[why];
    return { status: STATUSES[why], body: { code, message, raw_message: message, detail: null } };
  },
};
