import { describedBody, isWorking, progressOf } from '../message-body.js';
import { formatMessageId, type MessageFacts } from '../message-id.js';
import { bearerOf, fieldOf, isoOf } from './request-parts.js';
import type { MessageView, Refusal, SimulatedDialect } from './simulated-dialect.js';

const STATUSES: Readonly<Record<Refusal, number>> = {
  invalid: 400,
  token: 401,
  rate: 429,
  quota: 403,
  reject: 200,
  reject400: 400,
  missing: 404,
  broken: 500,
};

function messageOf(facts: MessageFacts, view: MessageView): object {
  const messageId = formatMessageId(facts);
  const created = { messageId, createdAt: isoOf(facts.submittedAt), ref: facts.ref };
  if (isWorking(facts, view.expireMins, view.nowMs)) {
    const progress = progressOf(facts, view.nowMs);
    return {
      ...created,
      status: progress === 0 ? 'QUEUED' : 'PROCESSING',
      progress,
      updatedAt: isoOf(view.nowMs),
    };
  }
  const updatedAt = isoOf(facts.submittedAt + facts.latencyMs);
  if (facts.fate !== 'completes')
    return { ...created, status: 'FAIL', error: 'Simulated: the job has failed', updatedAt };
  const { content } = describedBody(facts, view.shape);
  return { ...created, status: 'DONE', progress: 100, content, updatedAt };
}

export const imaginepro: SimulatedDialect = {
  name: 'imaginepro',
  submitPaths: ['/api/v1/midjourney/describe', '/api/v1/nova/describe'],
  messagePaths: ['/api/v1/midjourney/message/:id', '/api/v1/message/fetch/:id'],
  tokenOf: bearerOf,
  readSubmit: (body) => ({
    url: fieldOf(body, 'url'),
    ref: fieldOf(body, 'ref'),
    webhook: fieldOf(body, 'webhookOverride'),
  }),
  accepted: (facts) => ({
    success: 'PROCESSING',
    messageId: formatMessageId(facts),
    createdAt: isoOf(facts.submittedAt),
  }),
  message: messageOf,
  delivered: messageOf,
  refusal: (why, error) => ({ status: STATUSES[why], body: { success: false, error } }),
};
