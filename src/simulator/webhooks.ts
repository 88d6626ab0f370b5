import { Agent } from 'undici';
import { planDelivery } from './delivery-plan.js';
import { Forger } from './forger.js';
import type { KnownSubmit } from './forgery.js';
import type { SimulatorSettings } from './options.js';
import type { Random } from './random.js';
import type { StatsKeeper } from './stats.js';

const TIMEOUT_MS = 10_000;
/** Forgeries under way at most: a receiver that does not answer is not waited for by more of them. */
const MOST_FORGERIES = 200;

export interface WebhookParts {
  readonly settings: () => SimulatorSettings;
  readonly random: Random;
  readonly stats: StatsKeeper;
}

/**
 * Posts completed messages to webhooks, each once when it is due unless its settings say otherwise; a failure is told
 * to nobody but the counts.
 */
export class WebhookSender {
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly agent = new Agent({ connect: { timeout: TIMEOUT_MS } });
  private readonly forger: Forger;
  private forgeries = 0;
  private closed = false;

  constructor(private readonly parts: WebhookParts) {
    this.forger = new Forger({
      rate: () => parts.settings().webhooks.forged,
      random: parts.random,
      send: ({ url, body }) => void this.forge(url, body),
    });
  }

  /** A submit that will be completed has named a webhook. */
  expect(submit: KnownSubmit): void {
    if (this.closed) return;
    const { settings, random, stats } = this.parts;
    const { latencyMs } = submit.facts;
    const { fault, sendAtMs } = planDelivery(latencyMs, settings().webhooks, random);
    if (fault !== undefined) stats.countDeliveryFault(fault);
    for (const delayMs of sendAtMs) this.schedule(submit, delayMs);
    this.forger.learn(submit);
  }

  /** Drops what is not due yet, and breaks off what is under way. */
  async close(): Promise<void> {
    this.closed = true;
    this.forger.close();
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    await this.agent.destroy();
  }

  private schedule({ url, facts, deliveredFor }: KnownSubmit, delayMs: number): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      void this.deliver(url, JSON.stringify(deliveredFor(facts)));
    }, delayMs);
    this.timers.add(timer);
  }

  private async deliver(url: string, body: string): Promise<void> {
    const status = await this.post(url, body);
    this.parts.stats.count(status !== undefined && status < 300 ? 'webhooksSent' : 'webhooksFailed');
  }

  private async forge(url: string, body: string): Promise<void> {
    if (this.closed || this.forgeries >= MOST_FORGERIES) return;
    this.forgeries++;
    this.parts.stats.countDeliveryFault('forged');
    await this.post(url, body);
    this.forgeries--;
  }

  /** @returns the status; undefined when there was none: the service tells nobody why, and neither does this */
  private async post(url: string, body: string): Promise<number | undefined> {
    try {
      const response = await this.agent.request({
        ...splitUrl(url),
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

function splitUrl(text: string): { origin: string; path: string } {
  const url = new URL(text);
  return { origin: url.origin, path: url.pathname + url.search };
}
