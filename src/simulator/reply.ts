import type { WireRefusal } from '../describe-api/wire.js';

/** What is done with a call: a plain answer, or one of the ways to leave it without. */
export type Reply =
  | { readonly kind: 'json'; readonly status: number; readonly body: object; readonly retryAfter?: string }
  | { readonly kind: 'text'; readonly status: number; readonly type: string; readonly text: string }
  | { readonly kind: 'reset' }
  | { readonly kind: 'hang' };

/** A refusal as the API words it. */
export function refuse(status: number, msg: string): Reply {
  const body: WireRefusal = { success: false, msg };
  return { kind: 'json', status, body };
}
