import type { Dialect } from './dialect.js';
import { readStatusMessage, readStatusSubmitted, type StatusWords } from './status-message.js';

const WORDS: StatusWords = {
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
  credentials: (token) => ({ authorization: `Bearer ${token}` }),
  givesRefs: true,
  submitBody: ({ url, ref, webhookOverride }) => ({
    url,
    ...(ref !== undefined && { ref }),
    ...(webhookOverride !== undefined && { webhookOverride }),
  }),
  readSubmitted: (body, call) => readStatusSubmitted(body, call, WORDS),
  readMessage: (body, messageId, call) => readStatusMessage(body, messageId, call, WORDS),
} as const satisfies Dialect;
