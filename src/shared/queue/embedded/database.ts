import { EventEmitter } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as yieldToOthers, setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { PGlite, types } from '@electric-sql/pglite';
import type { PgPool, PgPoolClient, PgQueryResult } from 'bullmq';
import pLimit from 'p-limit';
import { FatalError, isSystemError } from '../../errors.js';
import { clockAheadMs, repeat } from '../../waiting.js';
import { HAS_WAITING_JOBS, HAS_WAITING_JOBS_EVERY_MS, moveMoments } from './bullmq-sql.js';

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

/** An empty queue, which the build makes: to make one takes 900 MB, to unpack it nothing that shows. */
const EMPTY_DATABASE = new URL('../../../../dist/empty-database.tar.gz', import.meta.url);

/** PGlite's own, and less memory for pages: BullMQ's tables are small. */
const START_PARAMS = [...PGlite.defaultStartParams, '-c', 'shared_buffers=16MB'];

/**
 * How much of a function is executed (about: its bytes) before V8 compiles it once more, for speed. With its own 1.8
 * million a start spends a second of processor and 50 MB on that, which even 2,000 images do not win back.
 */
const TIERING_BUDGET = 60_000_000;

/** Opens the database in a directory, for this process alone; puts an empty one there when there is none. */
export async function openDatabase(directory: string): Promise<Database> {
  const isNew = !existsSync(join(directory, 'PG_VERSION'));
  setFlagsFromString(`--wasm-tiering-budget=${TIERING_BUDGET}`);
  const engine = await PGlite.create({
    dataDir: directory,
    startParams: START_PARAMS,
    ...(isNew && { loadDataDir: new Blob([await readFile(EMPTY_DATABASE)]) }),
    serializers: SERIALIZERS,
  });
  const { ino: inode } = await stat(directory);
  return new Database(engine, async () => {
    const isGone = await stat(directory).then(
      ({ ino }) => ino !== inode,
      (error: unknown) => isSystemError(error) && error.code === 'ENOENT',
    );
    if (!isGone) return undefined;
    return new FatalError(
      `the embedded queue's files in ${directory} were removed or moved while it was open: the same command goes on with a ` +
        'new queue (images in flight are then paid again, finished rows are not)',
    );
  });
}

/** Less is not worth it; clocks are always set a little. */
const SMALLEST_JUMP_MS = 500;
const LOOK_EVERY_MS = 500;

/**
 * The database of this process, which BullMQ takes for a `pg.Pool`. There is one session for all: statements run one after
 * the other, in the order in which they were asked for. A transaction has nothing to itself, so it is for migrations alone,
 * before anybody else is there.
 */
export class Database implements PgPool {
  /** What `PostgresConnection` asks a pool for: there is no network connection that could drop unnoticed. */
  readonly options = { keepAlive: true };
  readonly #inTurn = pLimit(1);
  /** When the question for waiting jobs may be answered again, by queue. */
  readonly #nextAnswerMs = new Map<unknown, number>();
  readonly #closed = new AbortController();
  /** What the clock that may jump was ahead of the one that does not; undefined until there are tables. */
  #clockAheadMs: number | undefined;
  #lost: FatalError | undefined;
  #lose: ((reason: string) => void) | undefined;

  /**
   * @param findLoss says when the files are gone. PGlite would go on in its memory for a while, keep nothing, and then fail
   * in words that say nothing to anybody.
   */
  constructor(
    private readonly engine: Pick<PGlite, 'query' | 'exec' | 'onNotification' | 'close'>,
    private readonly findLoss: () => Promise<FatalError | undefined>,
  ) {}

  /** From now on, what is stored moves with the clock. */
  followClock(): void {
    this.#clockAheadMs = clockAheadMs();
  }

  /** @param lose is called once, when the files are gone: before any statement fails for that */
  watch(lose: (reason: string) => void): void {
    this.#lose = lose;
    const look = () => this.#look();
    void repeat(LOOK_EVERY_MS, this.#closed.signal, look, () => undefined);
  }

  /** Runs one statement; without parameters any number of them, whose rows nobody reads. */
  async query<R>(text: string, params?: readonly unknown[]): Promise<PgQueryResult<R>> {
    const askedAheadMs = clockAheadMs();
    if (HAS_WAITING_JOBS.test(text)) await this.#paceAnswer(params?.[0]);
    return this.#inTurn(async () => {
      // The database answers without ever leaving this thread: timers and sockets would starve.
      await yieldToOthers();
      await this.#followJump();
      const jumpMs = (this.#clockAheadMs ?? askedAheadMs) - askedAheadMs;
      return this.#run<R>(text, params && momentsMoved(params, jumpMs));
    });
  }

  async #run<R>(text: string, params?: readonly unknown[]): Promise<PgQueryResult<R>> {
    if (this.#lost !== undefined) throw this.#lost;
    try {
      if (params !== undefined || !isSeveralStatements(text))
        return await this.engine.query<R>(text, [...(params ?? [])]);
      await this.engine.exec(text);
      return { rows: [] };
    } catch (error) {
      throw (await this.#look()) ?? error;
    }
  }

  async #followJump(): Promise<void> {
    if (this.#clockAheadMs === undefined) return;
    const aheadMs = clockAheadMs();
    const jumpMs = Math.round(aheadMs - this.#clockAheadMs);
    if (Math.abs(jumpMs) < SMALLEST_JUMP_MS) return;
    this.#clockAheadMs = aheadMs;
    await moveMoments({ query: (text, params) => this.#run(text, params) }, jumpMs);
  }

  async #paceAnswer(queue: unknown): Promise<void> {
    const now = performance.now();
    const at = Math.max(now, this.#nextAnswerMs.get(queue) ?? 0);
    this.#nextAnswerMs.set(queue, at + HAS_WAITING_JOBS_EVERY_MS);
    if (at > now) await delay(at - now);
  }

  async #look(): Promise<FatalError | undefined> {
    const loss = await this.findLoss();
    if (loss === undefined || this.#lost !== undefined) return this.#lost;
    this.#lost = loss;
    this.#closed.abort();
    this.#lose?.(loss.message);
    return loss;
  }

  /** A client hears what is notified; each worker keeps one for good. */
  connect(): Promise<PgPoolClient> {
    const events = new EventEmitter().setMaxListeners(0);
    const stopListening = this.engine.onNotification((channel, payload) => {
      events.emit('notification', { channel, payload });
    });
    const query = this.query.bind(this);
    return Promise.resolve(Object.assign(events, { query, release: stopListening }));
  }

  /**
   * A checkpoint makes the next opening quick; the files are complete without it too, so that a full disk is no failure of
   * what was done.
   * @param onError gets what was not done in order
   */
  async close(onError: (error: unknown) => void): Promise<void> {
    this.#closed.abort();
    if ((await this.#look()) !== undefined) return;
    await this.engine.exec('CHECKPOINT').catch(onError);
    await this.engine.close().catch(onError);
  }

  /** It is closed by whoever has opened it, and not with a queue of BullMQ's. */
  end(): Promise<void> {
    return Promise.resolve();
  }

  /** Never emits: it fails with its statements only. */
  on(): this {
    return this;
  }

  removeAllListeners(): this {
    return this;
  }
}

/** The protocol that takes parameters takes one statement only. */
function isSeveralStatements(text: string): boolean {
  const statements = text.replace(/--.*$/gm, '').trim();
  return statements.slice(0, -1).includes(';');
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
