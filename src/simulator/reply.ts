import type { Refusal, SimulatedDialect } from './dialects/simulated-dialect.js';

/** What is done with a call: a plain answer (after a while), or one of the ways to leave it without. */
export type Reply =
  | {
      readonly kind: 'json';
      readonly status: number;
      readonly body: object;
      readonly headers?: Readonly<Record<string, string>>;
      readonly delayMs?: number;
    }
  | {
      readonly kind: 'text';
      readonly status: number;
      readonly type: string;
      readonly text: string;
      readonly delayMs?: number;
    }
  | { readonly kind: 'reset' }
  | { readonly kind: 'hang' };

/** A refusal in a dialect's words. */
export function refuse(
  dialect: SimulatedDialect,
  why: Refusal,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Reply {
  const { status, body } = dialect.refusal(why, text);
  if (typeof body === 'string') return { kind: 'text', status, type: 'text/plain', text: body };
  return { kind: 'json', status, body, headers };
}
