import { Agent } from 'undici';
import { formatMessageId, type MessageFacts } from './messages.js';
import { DELIVERY_FAULTS, type DeliveryFault, type WebhookFaults } from './options.js';
import { drawKind, pick, type Random } from './random.js';
import type { StatsKeeper } from './stats.js';

const TIMEOUT_MS = 10_000;

/** A submit that named a webhook. */
export interface KnownSubmit {
  /** The webhook, with whatever secret is in it. */
  readonly url: string;
  readonly facts: MessageFacts;
  /** What the API would deliver for a message of these facts. */
  readonly deliveredFor: (facts: MessageFacts) => object;
}

/** Plans a delivery: what goes wrong with it, and when it is sent, in milliseconds after the submit. */
export function planDelivery(
  latencyMs: number,
  faults: WebhookFaults,
  random: Random,
): { readonly fault: DeliveryFault | undefined; readonly sendAtMs: readonly number[] } {
  const fault = drawKind(DELIVERY_FAULTS, faults, random);
  switch (fault) {
    case undefined:
      return { fault, sendAtMs: [latencyMs] };
    case 'lost':
      return { fault, sendAtMs: [] };
    case 'late':
      return { fault, sendAtMs: [latencyMs + Math.max(1000, latencyMs) * (1 + random())] };
    case 'early':
      return { fault, sendAtMs: [latencyMs * 0.9 * random()] };
    case 'doubled':
      return { fault, sendAtMs: [latencyMs, latencyMs + 1000 * random()] };
  }
}

/**
 * Posts completed messages to webhooks, each once when it is due unless its settings say otherwise. Failures are
 * counted, and not reported to anybody. Besides it can forge deliveries.
 */
export class WebhookSender {
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #agent = new Agent({ connect: { timeout: TIMEOUT_MS } });
  readonly #forger: Forger;

  constructor(
    private readonly deps: {
      readonly settings: () => WebhookFaults;
      readonly random: Random;
      readonly stats: StatsKeeper;
    },
  ) {
    const { settings, random, stats } = deps;
    this.#forger = new Forger(
      () => settings().forged,
      random,
      async ({ url, body }) => {
        stats.countDeliveryFault('forged');
        await this.#post(url, body);
      },
    );
  }

  /** A submit that will be completed has named a webhook. */
  expect(submit: KnownSubmit): void {
    const { url, facts, deliveredFor } = submit;
    const { settings, random, stats } = this.deps;
    const { fault, sendAtMs } = planDelivery(facts.latencyMs, settings(), random);
    if (fault !== undefined) stats.countDeliveryFault(fault);
    for (const delayMs of sendAtMs) {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        void this.#post(url, JSON.stringify(deliveredFor(facts))).then((status) =>
          stats.count(status !== undefined && status < 300 ? 'webhooksSent' : 'webhooksFailed'),
        );
      }, delayMs);
      this.#timers.add(timer);
    }
    this.#forger.learn(submit);
  }

  /** Drops what is not due yet, and breaks off what is under way. */
  async close(): Promise<void> {
    this.#forger.close();
    for (const timer of this.#timers) clearTimeout(timer);
    await this.#agent.destroy();
  }

  /** @returns the status; undefined when there was none: like the real service, the simulator gives no reason */
  async #post(text: string, body: string): Promise<number | undefined> {
    const { origin, pathname, search } = new URL(text);
    try {
      const response = await this.#agent.request({
        origin,
        path: pathname + search,
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await response.body.dump();
      return response.statusCode;
    } catch {
      return undefined;
    }
  }
}

/** The newest submits that are lied about: most of them are still in progress. */
const MOST_KNOWN = 100;
/** Forgeries under way at most: a receiver that does not answer is not waited for by more of them. */
const MOST_FORGERIES = 200;
const FORGE_EVERY_MS = 20;
/** What was missed in a longer time than this is not made up for. */
const LONGEST_BURST_MS = 200;

interface Forgery {
  readonly url: string;
  readonly body: string;
}

/** Somebody who sends made-up deliveries about the submits that it has seen, at a rate. */
class Forger {
  readonly #known: KnownSubmit[] = [];
  #timer: NodeJS.Timeout | undefined;
  #lastAt = 0;
  #due = 0;
  #underWay = 0;

  constructor(
    private readonly rate: () => WebhookFaults['forged'],
    private readonly random: Random,
    private readonly send: (forgery: Forgery) => Promise<void>,
  ) {}

  /** Lets it see a submit. */
  learn(submit: KnownSubmit): void {
    this.#known.push(submit);
    if (this.#known.length > MOST_KNOWN) this.#known.shift();
    if (this.#timer !== undefined) return;
    this.#lastAt = performance.now();
    this.#timer = setInterval(() => this.#forge(), FORGE_EVERY_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #forge(): void {
    const now = performance.now();
    const passedMs = Math.min(LONGEST_BURST_MS, now - this.#lastAt);
    this.#lastAt = now;
    const rate = this.rate();
    const [first, ...others] = this.#known;
    if (rate === undefined || first === undefined) return;
    for (this.#due += (passedMs * rate.count) / rate.perMs; this.#due >= 1; this.#due--) {
      if (this.#underWay >= MOST_FORGERIES) continue;
      this.#underWay++;
      void this.send(forgeDelivery([first, ...others], this.random)).finally(() => this.#underWay--);
    }
  }
}

/** Ways to lie about a message. Each is of the API's own form, so that only the API can tell. */
const FORGES: readonly [Forge, ...Forge[]] = [
  // Its own id and ref, and prompts that it never had.
  (victim) => ({ url: victim.url, body: retold(victim, formatMessageId(victim.facts), victim.facts.ref) }),
  // The message of another image.
  (victim, other) => ({ url: victim.url, body: JSON.stringify(other.deliveredFor(other.facts)) }),
  // A message that the API does not know.
  (victim, _other, word) => ({ url: victim.url, body: retold(victim, `forged-${word()}`, '') }),
  // With a ref that nobody has made, where the ref is not in the URL.
  (victim, _other, word) => ({
    url: folderOf(victim.url),
    body: retold(victim, formatMessageId(victim.facts), word()),
  }),
  // Not even a delivery.
  (victim, _other, word) => ({ url: victim.url, body: `{"messageId":"${word()}` }),
  // By somebody who has guessed the path wrongly.
  (victim, _other, word) => ({
    url: `${folderOf(victim.url)}/${word()}`,
    body: retold(victim, formatMessageId(victim.facts), ''),
  }),
];
type Forge = (victim: KnownSubmit, other: KnownSubmit, word: () => string) => Forgery;

/** Makes up a delivery about one of these submits. */
export function forgeDelivery(known: readonly [KnownSubmit, ...KnownSubmit[]], random: Random): Forgery {
  const digit = () => Math.floor(random() * 16).toString(16);
  const word = () => Array.from({ length: 16 }, digit).join('');
  return pick(FORGES, random)(pick(known, random), pick(known, random), word);
}

/** A delivery of a message under other names; its prompts are another image's. */
function retold({ facts, deliveredFor }: KnownSubmit, messageId: string, ref: string): string {
  const other = { ...facts, urlHash: facts.urlHash.split('').reverse().join(''), ref };
  return JSON.stringify(deliveredFor(other)).replaceAll(formatMessageId(other), messageId);
}

function folderOf(url: string): string {
  const folder = new URL(url);
  folder.pathname = folder.pathname.replace(/\/[^/]*$/, '');
  return folder.href;
}
