import { EventEmitter } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as yieldToOthers, setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { PGlite, types } from '@electric-sql/pglite';
import type { PgPool, PgPoolClient, PgQueryResult } from 'bullmq';
import { clockAheadMs } from '../../waiting.js';
import { MAX_STALLED_COUNT } from '../connection.js';

/**
 * PostgreSQL's text and jsonb hold neither U+0000 nor a surrogate without its other half, though JavaScript strings and JSON do:
 * they become U+FFFD, so that no answer of an API keeps a job from being stored.
 */
function toText(value: unknown): string {
  return String(value).replace(/[\0\p{Surrogate}]/gu, '\uFFFD');
}

/** JSON has them as escapes; those of JSON inside JSON, as in BullMQ's bulk commands, have more backslashes before them. */
function toJson(value: unknown): string {
  const json = typeof value === 'string' ? value : JSON.stringify(value);
  return json.replace(/\\u(?:0000|d[89a-f][0-9a-f]{2})/gi, '\\ufffd');
}

/** Every text that goes into the database passes these; arrays of text too. */
const SERIALIZERS = {
  [types.TEXT]: toText,
  [types.VARCHAR]: toText,
  [types.JSON]: toJson,
  [types.JSONB]: toJson,
};

export interface SessionResult<R> {
  rows: R[];
  rowCount: number | null;
}

/** The one database session of this process: the database runs in it, on the files of a directory. */
export interface Session {
  /** Runs one statement; without parameters any number of them, whose rows nobody reads. */
  query<R>(text: string, params?: readonly unknown[]): Promise<SessionResult<R>>;
  onNotification(listener: (channel: string, payload: string) => void): () => void;
  close(): Promise<void>;
}

/** An empty database, which the build makes: to make one takes 900 MB, to unpack it nothing that shows. */
const EMPTY_DATABASE = new URL('../../../../dist/empty-database.tar.gz', import.meta.url);

/** PGlite's own, and less memory for pages: BullMQ's tables are small. */
const START_PARAMS = [...PGlite.defaultStartParams, '-c', 'shared_buffers=16MB'];

/**
 * How much of a function is executed (about: its bytes) before V8 compiles it once more, for speed. With its own 1.8
 * million a start spends a second of processor and 50 MB on that, which even 2,000 images do not win back.
 */
const TIERING_BUDGET = 60_000_000;

/** Opens the database in `dataDirectory`; puts an empty one there when there is none. */
export async function openSession(dataDirectory: string): Promise<Session> {
  const isNew = !existsSync(join(dataDirectory, 'PG_VERSION'));
  setFlagsFromString(`--wasm-tiering-budget=${TIERING_BUDGET}`);
  const database = await PGlite.create({
    dataDir: dataDirectory,
    startParams: START_PARAMS,
    ...(isNew && { loadDataDir: new Blob([await readFile(EMPTY_DATABASE)]) }),
    serializers: SERIALIZERS,
  });
  return {
    async query<R>(text: string, params?: readonly unknown[]): Promise<SessionResult<R>> {
      if (params === undefined && isSeveralStatements(text)) {
        await database.exec(text);
        return { rows: [], rowCount: null };
      }
      const { rows, rowCount } = await database.query<R>(text, [...(params ?? [])]);
      return { rows, rowCount: rowCount ?? null };
    },
    onNotification: (listener) => database.onNotification(listener),
    close: () => database.close(),
  };
}

/** The protocol that takes parameters takes one statement only. */
function isSeveralStatements(text: string): boolean {
  const statements = text.replace(/--.*$/gm, '').trim();
  return statements.slice(0, -1).includes(';');
}

/**
 * BullMQ's question whether a queue has waiting jobs, asked whenever a worker is about to wait for one. While
 * the queue may have no more active jobs than it has, the answer makes the worker ask again at once, for ever,
 * which keeps a processor busy. So it is answered this often at most; new jobs are announced anyhow.
 */
const HAS_WAITING_JOBS = /state = 'waiting'\s*\)\s*AND NOT EXISTS/;
const HAS_WAITING_JOBS_EVERY_MS = 100;

/** Less is not worth it; clocks are always set a little. */
const SMALLEST_JUMP_MS = 500;
/** The moments that BullMQ stores; each lies a length of time after the moment in which it was stored. */
const MOVE_MOMENTS = [
  'UPDATE rate_limit SET expire_at_ms = expire_at_ms + $1::bigint',
  'UPDATE job SET process_at_ms = process_at_ms + $1::bigint WHERE process_at_ms IS NOT NULL',
  'UPDATE job SET locked_until_ms = locked_until_ms + $1::bigint WHERE locked_until_ms IS NOT NULL',
  "UPDATE meta SET value = (value::bigint + $1::bigint)::text WHERE field = 'stalled-check'",
];
/** A worker that waits may have asked before the jump until when. */
const WAKE_WORKERS =
  "SELECT pg_notify('bullmq_jobs', queue) FROM (SELECT DISTINCT queue FROM job WHERE state IN ('waiting', 'delayed')) AS queues";

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

  /** What the clock that may jump was ahead of the one that does not; undefined until there are tables. */
  #clockAheadMs: number | undefined;

  constructor(private readonly session: Session) {}

  /** From now on, what is stored moves with the clock. */
  followClock(): void {
    this.#clockAheadMs = clockAheadMs();
  }

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

  /**
   * Runs a statement for whoever has the session.
   * @param askedAheadMs what the clock was ahead of the one that does not jump when the statement was asked for
   */
  async run<R>(
    text: string,
    params?: readonly unknown[],
    askedAheadMs = clockAheadMs(),
  ): Promise<PgQueryResult<R>> {
    // The database answers without ever leaving this thread: timers and sockets would starve.
    await yieldToOthers();
    await this.#moveMoments();
    const jumpMs = (this.#clockAheadMs ?? askedAheadMs) - askedAheadMs;
    return this.session.query<R>(text, params && momentsMoved(params, jumpMs));
  }

  /** After a jump of the clock each length is what it was: else the queue would stand still for as long as it went back. */
  async #moveMoments(): Promise<void> {
    if (this.#clockAheadMs === undefined) return;
    const aheadMs = clockAheadMs();
    const jumpMs = Math.round(aheadMs - this.#clockAheadMs);
    if (Math.abs(jumpMs) < SMALLEST_JUMP_MS) return;
    this.#clockAheadMs = aheadMs;
    for (const statement of MOVE_MOMENTS) await this.session.query(statement, [jumpMs]);
    await this.session.query(WAKE_WORKERS);
  }

  async query<R>(text: string, params?: readonly unknown[]): Promise<PgQueryResult<R>> {
    const askedAheadMs = clockAheadMs();
    if (HAS_WAITING_JOBS.test(text)) await this.#paceAnswer(params?.[0]);
    const handOn = await this.take();
    try {
      return await this.run<R>(text, params, askedAheadMs);
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

/** In epoch milliseconds, long before this program: no length of time and no count is as large. */
const FIRST_MOMENT_MS = 1e12;

/** The moments among a statement's parameters, after a jump of the clock while it waited for its turn: what is stored has been moved. */
function momentsMoved(params: readonly unknown[], jumpMs: number): readonly unknown[] {
  if (Math.abs(jumpMs) < SMALLEST_JUMP_MS) return params;
  return params.map((param) =>
    typeof param === 'number' && param >= FIRST_MOMENT_MS ? Math.round(param + jumpMs) : param,
  );
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

/**
 * Puts the jobs that were active when the earlier process died back to waiting, at the head of their queues.
 *
 * One process at a time has the database, so at its opening every active job's worker is dead, however long
 * its lock would last. BullMQ's own recovery (`move_stalled_jobs_to_wait`) would find these jobs 10 to 15 s
 * later and put them behind the backlog. This does to a job what that function does, in a statement on
 * the columns of migration 0001: the state, the lock, the mark, the count, and the failure when a job
 * has stalled too often (a scheduler's job never fails for that). A negative `seq` is BullMQ's way to say
 * "at the head". No worker runs yet, so nobody has to be notified. Jobs whose data holds a `messageId` are paid
 * for: they come last here, so that they are the first to be activated.
 *
 * @returns how many there were
 */
export async function takeOverActiveJobs(pool: SessionPool): Promise<number> {
  const unpaid = await takeOver(pool, false);
  const paid = await takeOver(pool, true);
  return unpaid + paid;
}

async function takeOver(pool: SessionPool, hasMessage: boolean): Promise<number> {
  const { rows } = await pool.query<{ id: string }>(
    `UPDATE job
        SET state = 'waiting',
            seq = -nextval('job_seq'),
            lock_token = NULL,
            locked_until_ms = NULL,
            stalled_marked = false,
            stalled_count = stalled_count + 1,
            deferred_failure = CASE
              WHEN stalled_count + 1 > $1::integer AND scheduler_id IS NULL
                THEN 'job stalled more than allowable limit'
              ELSE deferred_failure
            END
      WHERE state = 'active' AND (data ? 'messageId') = $2::boolean
      RETURNING id`,
    [MAX_STALLED_COUNT, hasMessage],
  );
  return rows.length;
}
