/** The documented time after which an uncompleted message counts as incomplete. */
export const DEFAULT_EXPIRE_MINS = 12;

/** How a message ends: completed, expired where it would have completed, or not at all. */
export type Fate = 'completes' | 'expires' | 'never';

/**
 * What a message id says. The simulator keeps no messages: everything that a poll needs is in the id, so
 * that a message outlives the process, as it does at the real service.
 */
export interface MessageFacts {
  /** Epoch milliseconds. */
  readonly submittedAt: number;
  readonly latencyMs: number;
  readonly fate: Fate;
  readonly urlHash: string;
  /** Makes ids of the same URL and millisecond differ, in other processes too. */
  readonly nonce: string;
  readonly ref: string;
}

const FATE_LETTERS: Readonly<Record<Fate, string>> = { completes: 'c', expires: 'x', never: 'n' };
const FATES: readonly Fate[] = ['completes', 'expires', 'never'];
const MESSAGE_ID = /^sim-([0-9a-z]{1,10})-([0-9a-z]{1,8})-([cxn])-([0-9a-f]{16})-([0-9a-z]+)(?:-([\w-]+))?$/;

/** `sim-<submit time>-<latency>-<fate>-<URL hash>-<nonce>[-<ref>]`; numbers in base 36, the ref in base64url. */
export function formatMessageId(facts: MessageFacts): string {
  const numbers = `${facts.submittedAt.toString(36)}-${facts.latencyMs.toString(36)}`;
  const ref = facts.ref && `-${Buffer.from(facts.ref).toString('base64url')}`;
  return `sim-${numbers}-${FATE_LETTERS[facts.fate]}-${facts.urlHash}-${facts.nonce}${ref}`;
}

/** Reads an id back; undefined for one that no simulator gave. */
export function parseMessageId(id: string): MessageFacts | undefined {
  const [, submitted, latency, letter, urlHash, nonce, ref] = MESSAGE_ID.exec(id) ?? [];
  const fate = FATES.find((name) => FATE_LETTERS[name] === letter);
  if (!submitted || !latency || !fate || !urlHash || !nonce) return undefined;
  return {
    submittedAt: parseInt(submitted, 36),
    latencyMs: parseInt(latency, 36),
    fate,
    urlHash,
    nonce,
    ref: Buffer.from(ref ?? '', 'base64url').toString('utf8'),
  };
}

/** When a message stops being worked on; a message that never completes is given up after `expireMins`. */
export function endsAt(facts: MessageFacts, expireMins: number): number {
  const latencyMs = facts.fate === 'never' ? Infinity : facts.latencyMs;
  return facts.submittedAt + Math.min(latencyMs, expireMins * 60_000);
}
