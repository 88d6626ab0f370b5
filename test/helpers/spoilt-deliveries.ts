import {
  type MessageFacts,
  formatMessageId,
  drawKind,
  pick,
  seededRandom,
} from '../../src/simulator/messages.js';
import type { Simulator } from './simulator.js';
import type { Delivery } from '../../src/simulator/api.js';

const KINDS = ['lost', 'late', 'early', 'doubled'] as const;

/**
 * The share (0 to 1) of deliveries that go wrong in each way, each in one at most:
 * - `lost` is not sent, `doubled` is sent twice
 * - `late` is sent when the message has been completed for once or twice as long as it took, a second at least
 * - `early` is sent while the message is in progress, though it says that it is completed
 */
export type DeliveryFaults = { readonly [kind in (typeof KINDS)[number]]?: number };

/** Spoils a simulator's deliveries from now on. @returns counts them by what was wrong */
export function spoilDeliveries(simulator: Simulator, faults: DeliveryFaults): Map<string, number> {
  const counts = new Map<string, number>();
  const random = seededRandom(1);
  simulator.onDelivery(({ facts: { latencyMs } }, sendAfter) => {
    const kind = drawKind(KINDS, faults, random);
    if (kind !== undefined) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    if (kind === 'late') sendAfter(latencyMs + Math.max(1000, latencyMs) * (1 + random()));
    else if (kind === 'early') sendAfter(latencyMs * 0.9 * random());
    else if (kind !== 'lost') sendAfter(latencyMs);
    if (kind === 'doubled') sendAfter(latencyMs + 1000 * random());
  });
  return counts;
}

/** The newest submits that are lied about: most of them are still in progress. */
const MOST_KNOWN = 100;
/** Forgeries under way at most: a receiver that does not answer is not waited for by more of them. */
const MOST_UNDER_WAY = 200;
const FORGE_EVERY_MS = 20;
/** What was missed in a longer time than this is not made up for. */
const LONGEST_BURST_MS = 200;

/** Sends made-up deliveries, so many a second, about the submits that a simulator takes from now on. */
export class Forger {
  sent = 0;
  readonly #known: Delivery[] = [];
  readonly #random = seededRandom(1);
  readonly #timer = setInterval(() => this.#forge(), FORGE_EVERY_MS);
  #lastAt = performance.now();
  #due = 0;
  #underWay = 0;

  constructor(
    simulator: Simulator,
    private readonly perSecond: number,
  ) {
    simulator.onDelivery((delivery, sendAfter) => {
      sendAfter(delivery.facts.latencyMs);
      this.#known.push(delivery);
      if (this.#known.length > MOST_KNOWN) this.#known.shift();
    });
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #forge(): void {
    const now = performance.now();
    const passedMs = Math.min(LONGEST_BURST_MS, now - this.#lastAt);
    this.#lastAt = now;
    const [first, ...others] = this.#known;
    if (first === undefined) return;
    for (this.#due += (passedMs * this.perSecond) / 1000; this.#due >= 1; this.#due--) {
      if (this.#underWay < MOST_UNDER_WAY) void this.#send([first, ...others]);
    }
  }

  async #send(known: readonly [Delivery, ...Delivery[]]): Promise<void> {
    this.#underWay++;
    this.sent++;
    const [url, body] = pick(FORGES, this.#random)(pick(known, this.#random), pick(known, this.#random));
    try {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(url, {
        method: 'POST',
        headers,
        body,
        signal: AbortSignal.timeout(10_000),
      });
      await response.text();
    } catch {
      // Whoever does not take it in has not been deceived.
    } finally {
      this.#underWay--;
    }
  }
}

type Forge = (victim: Delivery, other: Delivery) => readonly [url: string, body: string];

const UNKNOWN = '0123456789abcdef';

/** Ways to lie about a message. Each is of the API's own form, so that only the API can tell. */
const FORGES: readonly [Forge, ...Forge[]] = [
  // Its own id and ref, and prompts that it never had.
  (victim) => [victim.url, retold(victim, formatMessageId(victim.facts), victim.facts.ref)],
  // The message of another image.
  (victim, other) => [victim.url, JSON.stringify(other.bodyOf(other.facts))],
  // A message that the API does not know.
  (victim) => [victim.url, retold(victim, `forged-${UNKNOWN}`, '')],
  // With a ref that nobody has made, where the ref is not in the URL.
  (victim) => [folderOf(victim.url), retold(victim, formatMessageId(victim.facts), UNKNOWN)],
  // Not even a delivery.
  (victim) => [victim.url, '{"messageId":"0123'],
  // By somebody who has guessed the path wrongly.
  (victim) => [`${folderOf(victim.url)}/${UNKNOWN}`, retold(victim, formatMessageId(victim.facts), '')],
];

/** A delivery of a message under other names; its prompts are another image's. */
function retold({ facts, bodyOf }: Delivery, messageId: string, ref: string): string {
  const other: MessageFacts = { ...facts, urlHash: facts.urlHash.split('').reverse().join(''), ref };
  return JSON.stringify(bodyOf(other)).replaceAll(formatMessageId(other), messageId);
}

function folderOf(url: string): string {
  const folder = new URL(url);
  folder.pathname = folder.pathname.replace(/\/[^/]*$/, '');
  return folder.href;
}
