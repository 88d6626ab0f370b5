import type { WireRefusal, WireSubmitted } from '../../describe-api/wire.js';
import { describedBody, messageBody } from '../message-body.js';
import { formatMessageId } from '../message-id.js';
import { bearerOf, fieldOf, isoOf } from './request-parts.js';
import type { Refusal, SimulatedDialect } from './simulated-dialect.js';

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

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

export const thenextleg: SimulatedDialect = {
  name: 'thenextleg',
  submitPaths: ['/v2/describe'],
  getPaths: ['/v2/describe'],
  messagePaths: ['/v2/message/:id'],
  tokenOf: (request) =>
    bearerOf(request) ??
    textOf(fieldOf(request.query, 'authToken')) ??
    textOf(fieldOf(request.body, 'authToken')),
  readSubmit: (body) => ({
    url: fieldOf(body, 'url'),
    ref: fieldOf(body, 'ref'),
    webhook: fieldOf(body, 'webhookOverride'),
  }),
  accepted: (facts): WireSubmitted => ({
    success: true,
    messageId: formatMessageId(facts),
    createdAt: isoOf(facts.submittedAt),
  }),
  message: messageBody,
  delivered: (facts, { shape }) => describedBody(facts, shape),
  refusal: (why, msg) => {
    if (why === 'broken') return { status: 500, body: 'Internal Server Error' };
    const body: WireRefusal = { success: false, msg };
    return { status: STATUSES[why], body };
  },
};
