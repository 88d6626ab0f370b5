import { EventEmitter } from 'node:events';
import { setTimeout as delay, setImmediate as yieldToOthers } from 'node:timers/promises';
import type { PgPool, PgPoolClient, PgQueryResult } from 'bullmq';
import type { Session } from './session.js';

/**
 * BullMQ's question whether a queue has waiting jobs, asked whenever a worker is about to wait for one. While
 * the queue may have no more active jobs than it has, the answer makes the worker ask again at once, for ever,
 * which keeps a processor busy. So it is answered this often at most; new jobs are announced anyhow.
 */
const HAS_WAITING_JOBS = /state = 'waiting'\s*\)\s*AND NOT EXISTS/;
const HAS_WAITING_JOBS_EVERY_MS = 100;

/**
 * What BullMQ takes for a `pg.Pool`, over the one session there is.
 *
 * Statements run one after the other, in the order in which they were asked for. A client that begins a
 * transaction has the session to itself until that ends; any other client, such as the one that each worker
 * checks out for good to listen with, takes turns with everybody.
 */
export class SessionPool implements PgPool {
  #last: Promise<void> = Promise.resolve();
  /** When the question for waiting jobs may be answered again, by queue. */
  readonly #nextAnswerMs = new Map<unknown, number>();

  /** What `PostgresConnection` asks a pool for: there is no network connection that could drop unnoticed. */
  readonly options = { keepAlive: true };

  constructor(private readonly session: Session) {}

  /** Waits for the session. @returns the way to hand it on */
  async take(): Promise<() => void> {
    const before = this.#last;
    let handOn = (): void => undefined;
    this.#last = new Promise((resolve) => {
      handOn = resolve;
    });
    await before;
    return handOn;
  }

  /** Runs a statement for whoever has the session. */
  async run<R>(text: string, params?: readonly unknown[]): Promise<PgQueryResult<R>> {
    // The database answers without ever leaving this thread: timers and sockets would starve.
    await yieldToOthers();
    return this.session.query<R>(text, params);
  }

  async query<R>(text: string, params?: readonly unknown[]): Promise<PgQueryResult<R>> {
    if (HAS_WAITING_JOBS.test(text)) await this.#paceAnswer(params?.[0]);
    const handOn = await this.take();
    try {
      return await this.run<R>(text, params);
    } finally {
      handOn();
    }
  }

  async #paceAnswer(queue: unknown): Promise<void> {
    const now = performance.now();
    const at = Math.max(now, this.#nextAnswerMs.get(queue) ?? 0);
    this.#nextAnswerMs.set(queue, at + HAS_WAITING_JOBS_EVERY_MS);
    if (at > now) await delay(at - now);
  }

  connect(): Promise<PgPoolClient> {
    return Promise.resolve(new SessionClient(this, this.session));
  }

  /** The session belongs to whoever made it. */
  end(): Promise<void> {
    return Promise.resolve();
  }

  /** Never emits: the session fails with its statements only. */
  on(): this {
    return this;
  }

  removeAllListeners(): this {
    return this;
  }
}

/** A client of the pool; BullMQ listens with one and migrates with another. */
class SessionClient extends EventEmitter implements PgPoolClient {
  #endTransaction: (() => void) | undefined;
  readonly #stopListening: () => void;

  constructor(
    private readonly pool: SessionPool,
    session: Session,
  ) {
    super();
    this.setMaxListeners(0);
    this.#stopListening = session.onNotification((channel, payload) => {
      this.emit('notification', { channel, payload });
    });
  }

  async query<R>(text: string, params?: readonly unknown[]): Promise<PgQueryResult<R>> {
    if (/^\s*BEGIN\b/i.test(text)) this.#endTransaction ??= await this.pool.take();
    if (this.#endTransaction === undefined) return this.pool.query<R>(text, params);
    try {
      return await this.pool.run<R>(text, params);
    } finally {
      if (/^\s*(?:COMMIT|ROLLBACK)\b/i.test(text)) this.#handOn();
    }
  }

  /** BullMQ ends its transactions itself, whichever way they go. */
  release(): void {
    this.#stopListening();
    this.removeAllListeners();
    this.#handOn();
  }

  #handOn(): void {
    this.#endTransaction?.();
    this.#endTransaction = undefined;
  }
}
