import { parseMessage, parseSubmitted } from '../shapes.js';
import type { Dialect } from './dialect.js';

/** The protocol of docs/describe-api.md, and that several services speak. */
export const thenextleg = {
  name: 'thenextleg',
  hosts: ['api.thenextleg.io'],
  api: 'https://api.thenextleg.io/v2',
  submitUrl: (base) => `${base}/describe`,
  messageUrl: (base, messageId) => `${base}/message/${encodeURIComponent(messageId)}`,
  credentials: (token) => ({ authorization: `Bearer ${token}` }),
  getTokenParameter: 'authToken',
  expireParameter: 'expireMins',
  givesRefs: true,
  submitBody: ({ url, ref, webhookOverride }) => ({
    url,
    ...(ref !== undefined && { ref }),
    ...(webhookOverride !== undefined && { webhookOverride }),
  }),
  readSubmitted: parseSubmitted,
  readMessage: parseMessage,
} as const satisfies Dialect;
