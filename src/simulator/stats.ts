import type { FailureKind } from './options.js';

/** What happened since the start. */
export interface SimulatorStats {
  /** Accepted submits: each of them is paid. */
  paid: number;
  /** The same by URL; empty with `trackUrls: false`. */
  readonly paidByUrl: Map<string, number>;
  /** Calls by kind, whatever they were answered; `submits` are `posts` and `gets`. */
  readonly requests: { posts: number; gets: number; polls: number };
  submits: number;
  polls: number;
  answered401: number;
  answered429: number;
  answered503: number;
  /** Failures that were played, by kind. */
  readonly failures: { [kind in FailureKind]?: number };
  /** Most submits in any second, rate-limited ones included. */
  maxSubmitsInASecond: number;
  inFlight: number;
  maxInFlight: number;
  /** Deliveries that were taken in, and those that were not. */
  webhooksSent: number;
  webhooksFailed: number;
}

export function nothingYet(): SimulatorStats {
  return {
    ...{ paid: 0, paidByUrl: new Map(), requests: { posts: 0, gets: 0, polls: 0 }, submits: 0, polls: 0 },
    ...{ answered401: 0, answered429: 0, answered503: 0, failures: {}, maxSubmitsInASecond: 0 },
    ...{ inFlight: 0, maxInFlight: 0, webhooksSent: 0, webhooksFailed: 0 },
  };
}
