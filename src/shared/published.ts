import { z } from 'zod';
import { parseJson } from './parse-json.js';
import { isKnownDead } from './process-identity.js';
import type { SharedStore } from './queue/store.js';

/*
 * What processes publish for everybody at the same queue. The first half are kinds of the registry, which end with their
 * time; the second half are records, which stay.
 */

/** One kind of value that processes publish. */
export class PublishedKind<T> {
  constructor(
    protected readonly about: {
      /** Its name in the store. */
      readonly group: string;
      readonly schema: z.ZodType<T>;
      /** A value that is not published again within this time is gone. */
      readonly ttlMs: number;
      /** The order in which values are listed. */
      readonly order?: (a: T, b: T) => number;
    },
  ) {}

  /** Publishes a value, in place of the one that had the same id. */
  publish(store: SharedStore, id: string, value: T): Promise<void> {
    return store.announce(this.about.group, id, JSON.stringify(value), this.about.ttlMs);
  }

  withdraw(store: SharedStore, id: string): Promise<void> {
    return store.withdraw(this.about.group, id);
  }

  /** All values. One that another version wrote and this one cannot read is left out. */
  async list(store: SharedStore): Promise<T[]> {
    const texts = [...(await store.members(this.about.group)).values()];
    const values = texts.map((text) => this.read(text)).filter((value) => value !== undefined);
    return values.sort(this.about.order ?? (() => 0));
  }

  /** The value of one id; undefined when there is none, or none that this version can read. */
  async find(store: SharedStore, id: string): Promise<T | undefined> {
    return this.read((await store.members(this.about.group)).get(id) ?? '');
  }

  /** The ids of those that have published within so many milliseconds, by the clock of the queue. */
  async listFresh(store: SharedStore, withinMs: number): Promise<Set<string>> {
    const { group, ttlMs } = this.about;
    return new Set((await store.members(group, ttlMs - withinMs)).keys());
  }

  protected read(text: string): T | undefined {
    return this.about.schema.safeParse(parseJson(text)).data;
  }
}

/** A kind whose values are processes, each by an id of its own. */
class ProcessKind<T extends { readonly host: string; readonly pid: number }> extends PublishedKind<T> {
  /** Those that may be at work: all but those of this machine that are known to be dead. One that cannot be read counts as alive. */
  async listLiving(store: SharedStore): Promise<Map<string, T | undefined>> {
    const living = new Map<string, T | undefined>();
    for (const [id, text] of await store.members(this.about.group)) {
      const value = this.read(text);
      if (value === undefined || !(await isKnownDead(value))) living.set(id, value);
    }
    return living;
  }

  /** What those of these say of themselves that can be read. */
  async listProcesses(store: SharedStore): Promise<T[]> {
    return [...(await this.listLiving(store)).values()].filter((value) => value !== undefined);
  }
}

const DAY_MS = 24 * 3_600_000;
/** Workers and servers publish each second. */
const HEARTBEAT_TTL_MS = 10_000;

const workerStatusSchema = z.object({
  host: z.string(),
  pid: z.number(),
  /**
   * working: takes images. down: the API does not answer; one image at a time probes it.
   * token, quota, set-up: takes no more images, since the API rejects the token, says that the quota is spent, or describes
   * no image at all.
   */
  state: z.enum(['working', 'down', 'token', 'quota', 'set-up']),
  /** One line for people; empty while it works. */
  reason: z.string(),
  /** Why its calls do not reach the API at the moment, said before that counts as down. */
  trouble: z.string().optional(),
  /** Since when it has been in this state, epoch milliseconds. */
  since: z.number(),
  /** The share of the configured rate that the API lets through, in (0, 1]. */
  share: z.number(),
});

export type WorkerStatus = z.infer<typeof workerStatusSchema>;

/** The workers of an account's describe queue. */
export function workersOf(queueName: string) {
  const group = `workers:${queueName}`;
  return new ProcessKind({ group, schema: workerStatusSchema, ttlMs: HEARTBEAT_TTL_MS });
}

const serverStatusSchema = z.object({
  host: z.string(),
  pid: z.number(),
  /** The only folder it reads and writes. */
  root: z.string(),
  /** Epoch milliseconds. */
  since: z.number(),
  /** Runs that it executes at once, at most. */
  runsAtOnce: z.number(),
  runs: z.array(
    z.object({
      run: z.string().optional(),
      output: z.string(),
      /** The job of its request, once its files are open. */
      job: z.string().optional(),
    }),
  ),
});

export type ServerStatus = z.infer<typeof serverStatusSchema>;

/** The `serve` processes, which execute what is enqueued and scheduled. */
export const SERVERS = new ProcessKind({
  group: 'homes',
  schema: serverStatusSchema,
  ttlMs: HEARTBEAT_TTL_MS,
});

/** Accounts that somebody has worked for, by their queues; known over a weekend in which nothing runs. */
export const ACCOUNTS = new PublishedKind({
  group: 'accounts',
  schema: z.object({ label: z.string(), queueName: z.string() }),
  ttlMs: 7 * DAY_MS,
  order: (a, b) => (a.label < b.label ? -1 : 1),
});

/** What happened in a run over its time, in buckets that are equally wide; nothing of a row is in here. */
export const runSeriesSchema = z.object({
  /** When the first bucket begins, epoch milliseconds. */
  from: z.number(),
  widthMs: z.number().positive(),
  described: z.array(z.number()).readonly(),
  failed: z.array(z.number()).readonly(),
  /** What the run has cost up to the end of each, with prices. */
  cost: z.array(z.number()).readonly().optional(),
});

export type RunSeries = Readonly<z.infer<typeof runSeriesSchema>>;

const runStatusSchema = z.object({
  run: z.string(),
  /** The account's label, and the queue of its images. */
  account: z.string(),
  queueName: z.string(),
  manifest: z.string(),
  output: z.string(),
  /** The schedule that started it. */
  schedule: z.string().optional(),
  /** Where its coordinator is. */
  host: z.string(),
  pid: z.number(),
  /** Epoch milliseconds, by the coordinator's clock. */
  startedAt: z.number(),
  seenAt: z.number(),

  /** Rows read so far, and of the whole manifest where they could be counted. */
  rows: z.number(),
  totalRows: z.number().optional(),
  described: z.number(),
  resumed: z.number(),
  copied: z.number(),
  failed: z.number(),
  /** The failed rows by their codes. */
  failedByCode: z.record(z.string(), z.number()).optional(),
  /** Rows described or failed per second, over the last half a minute. */
  perSecond: z.number(),
  /** Milliseconds to the end, when there is a rate to tell it from. */
  etaMs: z.number().optional(),

  /** What this start of the run has used in tokens, and what all have cost. */
  inputTokens: z.number().optional(),
  outputTokens: z.number().optional(),
  cost: z.number().optional(),
  /** Of all starts of the run. */
  series: runSeriesSchema.optional(),

  /** Why it takes nothing more on, while it waits for what is in flight. */
  stopping: z.string().optional(),
  /** The kind of what stops it, or has stopped it: `cancelled`, `interrupted`, `down`, ... */
  stopKind: z.string().optional(),
  /** How it ended; undefined while it goes on. */
  ended: z.object({ exitCode: z.number(), remaining: z.number(), reason: z.string().optional() }).optional(),
});

export type RunStatus = z.infer<typeof runStatusSchema>;

/** The runs of the last day, the newest first: published each second, and once more when the run has ended. */
export const RUNS = new PublishedKind({
  group: 'runs',
  schema: runStatusSchema,
  ttlMs: DAY_MS,
  order: (a, b) => b.startedAt - a.startedAt,
});

/** A coordinator that has published nothing for so long is gone. */
const SILENT_MS = 10_000;

export interface PublishedRun extends RunStatus {
  /**
   * running: its coordinator is at work. ended: see `ended`. silent: its coordinator has died or lost the queue; the same
   * command resumes it.
   */
  readonly state: 'running' | 'ended' | 'silent';
}

/** The runs of the last day and their states, for which clocks of other machines count for nothing; the newest first. */
export async function listRuns(store: SharedStore): Promise<PublishedRun[]> {
  const runs = await RUNS.list(store);
  // After it: one that begins in between would be taken for silent.
  const fresh = await RUNS.listFresh(store, SILENT_MS);
  return runs.map((run) => {
    const lastSeen = fresh.has(run.run) ? 'running' : 'silent';
    return { ...run, state: run.ended === undefined ? lastSeen : 'ended' };
  });
}

/** Upper bounds in seconds; what is above the last one falls into `+Inf`. */
export const HISTOGRAM_BOUNDS = {
  latency: [0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200],
  pollLag: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60],
} as const;

export type HistogramName = keyof typeof HISTOGRAM_BOUNDS;
/** What the workers of an account have counted, all of them together, which no end of a worker loses; a field that was never counted is not there. */
export async function readMetrics(store: SharedStore, queueName: string): Promise<Map<string, number>> {
  const fields = Object.entries(await store.getFields(`metrics:${queueName}`));
  return new Map(
    fields.flatMap(([name, text]) => (Number.isFinite(Number(text)) ? [[name, Number(text)] as const] : [])),
  );
}

/** How long the account's describes have taken on average, from a submit to when that was noticed; undefined while there were none. */
export async function meanAnswerMs(store: SharedStore, queueName: string): Promise<number | undefined> {
  const metrics = [...(await readMetrics(store, queueName))];
  const buckets = metrics.filter(([name]) => name.startsWith('latency:le:'));
  const answers = buckets.reduce((sum, [, value]) => sum + value, 0);
  const [, seconds = 0] = metrics.find(([name]) => name === 'latency:sum') ?? [];
  return answers === 0 ? undefined : (seconds / answers) * 1000;
}
