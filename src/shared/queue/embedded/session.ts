import { EventEmitter } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as yieldToOthers, setTimeout as delay } from 'node:timers/promises';
import { PGlite, types } from '@electric-sql/pglite';
import type { PgPool, PgPoolClient, PgQueryResult } from 'bullmq';
import { MAX_STALLED_COUNT } from '../job-machinery.js';

const BULK_COMMANDS = /\b(?:add_jobs_bulk|add_flow)\(/;

const toText = (value: unknown) => escapeText(String(value));
const toJson = (value: unknown) => escapeJson(typeof value === 'string' ? value : JSON.stringify(value));
const toBulkJson = (value: unknown) =>
  escapeBulkJson(typeof value === 'string' ? value : JSON.stringify(value));

/** Every text that goes into or comes out of the database passes these; arrays of text too. */
const CODECS = {
  serializers: {
    [types.TEXT]: toText,
    [types.VARCHAR]: toText,
    [types.JSON]: toJson,
    [types.JSONB]: toJson,
  },
  parsers: {
    [types.TEXT]: unescapeText,
    [types.VARCHAR]: unescapeText,
    [types.JSON]: parseEscapedJson,
    [types.JSONB]: parseEscapedJson,
  },
};
const BULK_SERIALIZERS = { [types.JSON]: toBulkJson, [types.JSONB]: toBulkJson };

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

/** Opens the database in `dataDirectory`; puts an empty one there when there is none. */
export async function openSession(dataDirectory: string): Promise<Session> {
  const isNew = !existsSync(join(dataDirectory, 'PG_VERSION'));
  const database = await PGlite.create({
    dataDir: dataDirectory,
    startParams: START_PARAMS,
    ...(isNew && { loadDataDir: new Blob([await readFile(EMPTY_DATABASE)]) }),
    ...CODECS,
  });
  return {
    async query<R>(text: string, params?: readonly unknown[]): Promise<SessionResult<R>> {
      if (params === undefined && isSeveralStatements(text)) {
        await database.exec(text);
        return { rows: [], rowCount: null };
      }
      const serializers = BULK_COMMANDS.test(text) ? BULK_SERIALIZERS : undefined;
      const { rows, rowCount } = await database.query<R>(text, [...(params ?? [])], { serializers });
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

/*
 * PostgreSQL's text and jsonb hold neither U+0000 nor a surrogate without its other half, though JavaScript
 * strings and JSON do. Such code units are stored as U+E000 and four hex digits, and so is U+E000 itself:
 * every U+E000 in the database starts an escape, and reading it back is unambiguous.
 */

const ESCAPE = '\uE000';
const UNHOLDABLE = /[\0\uE000\p{Surrogate}]/gu;
const ESCAPED = /\uE000([0-9a-f]{4})/g;
/** JSON text that may hold such a code unit, written out or as an escape of JSON's own. */
const SUSPICIOUS_JSON = /[\0\uE000\p{Surrogate}]|\\u(?:0000|d[89a-f]|e000)/iu;

/** Makes text that PostgreSQL can hold. */
export function escapeText(text: string): string {
  return text.replace(UNHOLDABLE, (unit) => ESCAPE + unit.charCodeAt(0).toString(16).padStart(4, '0'));
}

/** The text that `escapeText` was given. */
export function unescapeText(text: string): string {
  if (!text.includes(ESCAPE)) return text;
  return text.replace(ESCAPED, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16)));
}

/** Makes JSON text that jsonb can hold. Untouched in all but the rarest cases. */
export function escapeJson(json: string): string {
  if (!SUSPICIOUS_JSON.test(json)) return json;
  return JSON.stringify(mapStrings(JSON.parse(json), escapeText));
}

/** Parses jsonb that `escapeJson` made. */
export function parseEscapedJson(json: string): unknown {
  const value: unknown = JSON.parse(json);
  return json.includes(ESCAPE) ? mapStrings(value, unescapeText) : value;
}

/**
 * Like `escapeJson`, for the entries of BullMQ's bulk commands, which carry each job's data as JSON text
 * inside the JSON.
 */
export function escapeBulkJson(json: string): string {
  if (!SUSPICIOUS_JSON.test(json)) return json;
  const entries: unknown = JSON.parse(json);
  if (!Array.isArray(entries)) return escapeJson(json);
  return JSON.stringify(entries.map(escapeEntry));
}

function escapeEntry(entry: unknown): unknown {
  if (!isRecord(entry) || typeof entry['data'] !== 'string') return mapStrings(entry, escapeText);
  const { data, ...rest } = entry;
  return { ...mapRecord(rest, escapeText), data: escapeJson(data) };
}

/** Maps all strings in a JSON value, the keys of its objects too. */
function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, map));
  return isRecord(value) ? mapRecord(value, map) : value;
}

function mapRecord(record: Record<string, unknown>, map: (text: string) => string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).map(([key, item]) => [map(key), mapStrings(item, map)]));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
