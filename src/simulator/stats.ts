import type { DeliveryFault, FailureKind } from './options.js';
import { SlidingWindow } from './sliding-window.js';

/** What happened since the start (accepted submits: since the journal was begun). */
export interface SimulatorStats {
  /** Accepted submits: each of them is paid. */
  readonly paid: number;
  /** The same by URL; empty with `trackUrls: false`. */
  readonly paidByUrl: ReadonlyMap<string, number>;
  /** Calls by kind, whatever they were answered; `submits` are `posts` and `gets`. */
  readonly requests: { readonly posts: number; readonly gets: number; readonly polls: number };
  readonly submits: number;
  readonly polls: number;
  readonly answered401: number;
  readonly answered429: number;
  readonly answered503: number;
  /** Failures that were played, by kind. */
  readonly failures: { readonly [kind in FailureKind]?: number };
  /** Most submits in any second, those that were refused included. */
  readonly maxSubmitsInASecond: number;
  readonly inFlight: number;
  readonly maxInFlight: number;
  /** Deliveries that were taken in, and those that were not. */
  readonly webhooksSent: number;
  readonly webhooksFailed: number;
  /** Deliveries that were made to go wrong, by kind, and how many were forged. */
  readonly webhookFaults: { readonly [fault in DeliveryFault | 'forged']?: number };
}

type Counter =
  'paid' | 'posts' | 'gets' | 'polls' | 'answered401' | 'answered429' | 'answered503' | WebhookCounter;
type WebhookCounter = 'webhooksSent' | 'webhooksFailed';

/** Counts what happens; the other parts tell it. */
export class StatsKeeper {
  private readonly counts = new Map<Counter, number>();
  private readonly failures = new Map<FailureKind, number>();
  private readonly deliveryFaults = new Map<DeliveryFault | 'forged', number>();
  private readonly paidByUrl = new Map<string, number>();
  private readonly lastSecond = new SlidingWindow();
  private maxSubmitsInASecond = 0;
  private maxInFlight = 0;

  constructor(private readonly trackUrls: boolean) {}

  count(what: Counter): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  countFailure(kind: FailureKind): void {
    this.failures.set(kind, (this.failures.get(kind) ?? 0) + 1);
  }

  countDeliveryFault(fault: DeliveryFault | 'forged'): void {
    this.deliveryFaults.set(fault, (this.deliveryFaults.get(fault) ?? 0) + 1);
  }

  /** @param nowMs of a clock that does not go back */
  countSubmit(how: 'posts' | 'gets', nowMs: number): void {
    this.count(how);
    this.lastSecond.add(nowMs);
    this.maxSubmitsInASecond = Math.max(this.maxSubmitsInASecond, this.lastSecond.count(nowMs, 1000));
  }

  countPaid(url: string): void {
    this.count('paid');
    if (this.trackUrls) this.paidByUrl.set(url, (this.paidByUrl.get(url) ?? 0) + 1);
  }

  noteInFlight(inFlight: number): void {
    this.maxInFlight = Math.max(this.maxInFlight, inFlight);
  }

  read(inFlight: number): SimulatorStats {
    const of = (what: Counter): number => this.counts.get(what) ?? 0;
    return {
      paid: of('paid'),
      paidByUrl: new Map(this.paidByUrl),
      requests: { posts: of('posts'), gets: of('gets'), polls: of('polls') },
      submits: of('posts') + of('gets'),
      polls: of('polls'),
      answered401: of('answered401'),
      answered429: of('answered429'),
      answered503: of('answered503'),
      failures: Object.fromEntries(this.failures),
      maxSubmitsInASecond: this.maxSubmitsInASecond,
      inFlight,
      maxInFlight: this.maxInFlight,
      webhooksSent: of('webhooksSent'),
      webhooksFailed: of('webhooksFailed'),
      webhookFaults: Object.fromEntries(this.deliveryFaults),
    };
  }
}
