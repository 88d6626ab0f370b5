import type { FastifyRequest } from 'fastify';
import { type Call, type Delivery, type Reply, SimulatedApi } from '../../src/simulator/api.js';
import type { SimulatedDialect } from '../../src/simulator/dialects.js';
import type { MessageFacts, Random } from '../../src/simulator/messages.js';
import { type CompleteOptions, type FailureKind, completeOptions } from '../../src/simulator/options.js';
import {
  type Simulator as UsualSimulator,
  type SimulatorOptions as UsualOptions,
  createApp,
  listenWith,
} from '../../src/simulator/simulator.js';

export type SimulatorOptions = UsualOptions & {
  /** Every call of the API gets 503. */
  readonly down?: boolean | undefined;
};

/** What can be changed while a simulator runs. */
export type SimulatorSettings = Omit<CompleteOptions, 'port' | 'seed' | 'journal'> & {
  readonly down: boolean;
};

/** Decides about a delivery: it may be sent once, after its latency, or never, or more often. */
type OnDelivery = (delivery: Delivery, sendAfter: (ms: number) => void) => void;

/** A simulator that is watched, and whose API may change. */
export interface Simulator extends UsualSimulator {
  stats(): WatchedApi['stats'];
  /** Changes settings from now on; `failures` is replaced as a whole. */
  setOptions(changes: Partial<SimulatorSettings>): void;
  /** Has the deliveries to webhooks decided about from now on; otherwise each is sent once, when it is due. */
  onDelivery(hook: OnDelivery): void;
}

/** @throws as the simulator itself does */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const api = new WatchedApi(options);
  return {
    ...(await listenWith(createApp(api), api.options.port)),
    stats: () => api.stats,
    setOptions: (changes) => api.change(changes),
    onDelivery: (hook) => {
      api.onDelivery = hook;
    },
  };
}

function nothingYet() {
  const failures: { [kind in FailureKind]?: number } = {};
  return {
    /** Accepted submits: each of them is paid. */
    paid: 0,
    /** The same by URL, or `data:` and the start of the hash of its data. */
    paidByUrl: new Map<string, number>(),
    /** Calls by kind, whatever they were answered. */
    requests: { posts: 0, gets: 0, polls: 0 },
    answered401: 0,
    answered429: 0,
    answered503: 0,
    /** Failures that were played, by kind. */
    failures,
    /** Most submits in any second, rate-limited ones included. */
    maxSubmitsInASecond: 0,
    maxInFlight: 0,
    /** Deliveries that were taken in, and those that were not. */
    webhooksSent: 0,
    webhooksFailed: 0,
  };
}

class WatchedApi extends SimulatedApi {
  readonly #stats = nothingYet();
  /** When the submits of the last second came. */
  readonly #lastSecond: number[] = [];
  #isDown: boolean;
  onDelivery: OnDelivery = ({ facts }, sendAfter) => sendAfter(facts.latencyMs);

  constructor({ down = false, ...options }: SimulatorOptions) {
    super(options);
    this.#isDown = down;
  }

  /** A copy: it does not change any more. */
  get stats() {
    const { posts, gets, polls } = this.#stats.requests;
    const inFlight = this.limits.inFlight(Date.now());
    return structuredClone({ ...this.#stats, submits: posts + gets, polls, inFlight });
  }

  change({ down = this.#isDown, ...changes }: Partial<SimulatorSettings>): void {
    this.options = completeOptions({ ...this.options, ...changes });
    this.#isDown = down;
  }

  override answer(dialect: SimulatedDialect, call: Call, request: FastifyRequest): Reply {
    if (call === 'submit') this.#countSubmit(request.method === 'GET' ? 'gets' : 'posts');
    else this.#stats.requests.polls++;
    if (this.#isDown) {
      this.#stats.answered503++;
      return { status: 503, body: '<h1>Service Unavailable</h1>' };
    }
    const reply = super.answer(dialect, call, request);
    if (typeof reply === 'object' && reply.status === 401) this.#stats.answered401++;
    if (typeof reply === 'object' && reply.status === 429) this.#stats.answered429++;
    return reply;
  }

  #countSubmit(method: 'posts' | 'gets'): void {
    this.#stats.requests[method]++;
    const now = performance.now();
    this.#lastSecond.push(now);
    while ((this.#lastSecond[0] ?? now) <= now - 1000) this.#lastSecond.shift();
    this.#stats.maxSubmitsInASecond = Math.max(this.#stats.maxSubmitsInASecond, this.#lastSecond.length);
  }

  protected override drawFailure<K extends FailureKind>(kinds: readonly K[], random?: Random): K | undefined {
    const kind = super.drawFailure(kinds, random);
    if (kind !== undefined) this.#stats.failures[kind] = (this.#stats.failures[kind] ?? 0) + 1;
    return kind;
  }

  protected override pay(url: string, facts: MessageFacts): void {
    super.pay(url, facts);
    const { paidByUrl } = this.#stats;
    this.#stats.paid++;
    paidByUrl.set(url, (paidByUrl.get(url) ?? 0) + 1);
    const inFlight = this.limits.inFlight(facts.submittedAt);
    this.#stats.maxInFlight = Math.max(this.#stats.maxInFlight, inFlight);
  }

  protected override deliver(delivery: Delivery): void {
    this.onDelivery(delivery, (ms) => void this.send(delivery, ms));
  }

  protected override async send(delivery: Delivery, afterMs: number): Promise<boolean | undefined> {
    const isTaken = await super.send(delivery, afterMs);
    if (isTaken !== undefined) this.#stats[isTaken ? 'webhooksSent' : 'webhooksFailed']++;
    return isTaken;
  }
}
