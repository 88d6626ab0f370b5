import { Agent } from 'undici';
import type { MessageFacts } from './messages.js';
import type { SimulatorStats } from './stats.js';

const TIMEOUT_MS = 10_000;

/** What a submit that has named a webhook leads to. */
export interface Delivery {
  /** The webhook, with whatever secret is in it. */
  readonly url: string;
  readonly facts: MessageFacts;
  /** What the API delivers for a message of these facts. */
  readonly bodyOf: (facts: MessageFacts) => object;
}

/** Decides about a delivery: it may be sent once, after its latency, or never, or more often. */
export type OnDelivery = (delivery: Delivery, sendAfter: (ms: number) => void) => void;

/** Posts completed messages to webhooks, each once when it is due. Failures are counted, and not reported to anybody. */
export class WebhookSender {
  onDelivery: OnDelivery = ({ facts }, sendAfter) => sendAfter(facts.latencyMs);
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #agent = new Agent({ connect: { timeout: TIMEOUT_MS } });

  constructor(private readonly stats: SimulatorStats) {}

  /** A submit that will be completed has named a webhook. */
  expect(delivery: Delivery): void {
    this.onDelivery(delivery, (ms) => {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        void this.#send(delivery);
      }, ms);
      this.#timers.add(timer);
    });
  }

  /** Drops what is not due yet, and breaks off what is under way. */
  async close(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    await this.#agent.destroy();
  }

  async #send({ url, facts, bodyOf }: Delivery): Promise<void> {
    const { origin, pathname, search } = new URL(url);
    try {
      const response = await this.#agent.request({
        origin,
        path: pathname + search,
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(bodyOf(facts)),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await response.body.dump();
      this.stats[response.statusCode < 300 ? 'webhooksSent' : 'webhooksFailed']++;
    } catch {
      // Like the real service, the simulator gives no reason.
      this.stats.webhooksFailed++;
    }
  }
}
