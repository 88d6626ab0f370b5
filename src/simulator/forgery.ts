import { formatMessageId, type MessageFacts } from './message-id.js';
import { pick, type Random } from './random.js';

/** A submit that named a webhook, as somebody knows it who has seen everything. */
export interface KnownSubmit {
  /** The webhook, with whatever secret is in it. */
  readonly url: string;
  readonly facts: MessageFacts;
  /** What the API would deliver for a message of these facts. */
  readonly deliveredFor: (facts: MessageFacts) => object;
}

export interface Forgery {
  readonly url: string;
  readonly body: string;
}

type Forge = (victim: KnownSubmit, other: KnownSubmit, random: Random) => Forgery;

/** Ways to lie about a message. Each is of the API's own form, so that only the API can tell. */
const FORGES: readonly [Forge, ...Forge[]] = [
  // Its own id and ref, and prompts that it never had.
  (victim, _other, random) => {
    const madeUp = { ...victim.facts, urlHash: randomHex(random) };
    const lie = JSON.stringify(victim.deliveredFor(madeUp));
    return {
      url: victim.url,
      body: lie.replaceAll(formatMessageId(madeUp), formatMessageId(victim.facts)),
    };
  },
  // The message of another image.
  (victim, other) => ({ url: victim.url, body: JSON.stringify(other.deliveredFor(other.facts)) }),
  // A message that the API does not know.
  (victim, _other, random) => ({ url: victim.url, body: renamed(victim, `forged-${randomHex(random)}`, '') }),
  // With a ref that nobody has made, where the ref is not in the URL.
  (victim, _other, random) => ({
    url: withoutLastSegment(victim.url),
    body: renamed(victim, formatMessageId(victim.facts), randomHex(random)),
  }),
  // Not even a delivery.
  (victim, _other, random) => ({ url: victim.url, body: `{"messageId":"${randomHex(random)}` }),
  // By somebody who has guessed the path wrongly.
  (victim, _other, random) => ({
    url: `${withoutLastSegment(victim.url)}/${randomHex(random)}`,
    body: renamed(victim, formatMessageId(victim.facts), ''),
  }),
];

/** Makes up a delivery about one of these submits. */
export function forgeDelivery(known: readonly [KnownSubmit, ...KnownSubmit[]], random: Random): Forgery {
  return pick(FORGES, random)(pick(known, random), pick(known, random), random);
}

/** A delivery of a message with other names; its prompts are another image's. */
function renamed(victim: KnownSubmit, messageId: string, ref: string): string {
  const facts = { ...victim.facts, urlHash: victim.facts.urlHash.split('').reverse().join(''), ref };
  return JSON.stringify(victim.deliveredFor(facts)).replaceAll(formatMessageId(facts), messageId);
}

function withoutLastSegment(url: string): string {
  const parts = new URL(url);
  parts.pathname = parts.pathname.replace(/\/[^/]*$/, '');
  return parts.href;
}

function randomHex(random: Random): string {
  return Array.from({ length: 16 }, () => Math.floor(random() * 16).toString(16)).join('');
}
