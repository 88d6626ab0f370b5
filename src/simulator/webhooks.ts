import { Agent } from 'undici';

const TIMEOUT_MS = 10_000;

/** Posts completed messages to webhooks, each once when it is due; a failure is told to nobody but the counts. */
export class WebhookSender {
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly agent = new Agent({ connect: { timeout: TIMEOUT_MS } });
  private closed = false;

  constructor(private readonly count: (what: 'webhooksSent' | 'webhooksFailed') => void) {}

  schedule(url: string, delayMs: number, makeBody: () => object): void {
    if (this.closed) return;
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      void this.deliver(url, makeBody());
    }, delayMs);
    this.timers.add(timer);
  }

  /** Drops what is not due yet, and breaks off what is under way. */
  async close(): Promise<void> {
    this.closed = true;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    await this.agent.destroy();
  }

  private async deliver(url: string, body: object): Promise<void> {
    try {
      const response = await this.agent.request({
        ...splitUrl(url),
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await response.body.dump();
      this.count(response.statusCode < 300 ? 'webhooksSent' : 'webhooksFailed');
    } catch {
      // The service tells nobody of a delivery that failed; whatever the failure was, it is counted.
      this.count('webhooksFailed');
    }
  }
}

function splitUrl(text: string): { origin: string; path: string } {
  const url = new URL(text);
  return { origin: url.origin, path: url.pathname + url.search };
}
