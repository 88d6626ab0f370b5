import { z } from 'zod';
import { type Limits, isDuration, isRate } from '../shared/limits.js';
import type { Logger } from '../shared/log.js';
import { ERROR_CODES, type ErrorCode } from '../shared/jobs.js';
import type { RunStatus } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import type { ApiOptions } from './api-options.js';
import type { CaptionOptions } from './captions.js';
import type { CheckedUrls } from './check-urls.js';
import type { ManifestCounts, SignedImage } from './count-rows.js';
import type { RunCounts } from '../shared/run-counts.js';

/**
 * Starts something on an open queue.
 * @param mayRead gives the real path of an output that may be shown, or throws
 * @returns what ends it
 */
export type Companion = (
  connection: QueueConnection,
  imageRoots: readonly string[],
  mayRead?: (output: string) => Promise<string>,
) => Promise<() => Promise<void>>;

/** Neither a file's name nor an environment holds a NUL. */
export const textSchema = z.string().refine((text) => !text.includes('\0'), 'a NUL character is in it');
export const nameSchema = textSchema.min(1).max(4096);
const namesSchema = z.array(nameSchema).readonly().optional();
const rateSchema = z
  .object({ count: z.number(), perMs: z.number() })
  .refine(isRate, 'expected a rate that can be kept, such as 20 in 60000 ms');
const limitsSchema = z.object({
  rate: rateSchema.optional(),
  pollRate: rateSchema.optional(),
  maxInFlight: z.int().min(1).optional(),
}) satisfies z.ZodType<Partial<Limits>>;

const pricesSchema = z
  .strictObject({ perMillionIn: z.number(), perMillionOut: z.number(), perImage: z.number() })
  .partial();

/** What an API takes, in whatever currency: for a million tokens, and for each answer about an image. */
export type Prices = Readonly<z.infer<typeof pricesSchema>>;

/** Why a run ended before its manifest did. */
export const runStopSchema = z.object({
  kind: z.enum([
    'interrupted',
    'cancelled',
    'token',
    'quota',
    'set-up',
    'down',
    'failing',
    'budget',
    'fatal',
  ]),
  /** One line for people. */
  reason: z.string(),
});

export type RunStop = Readonly<z.infer<typeof runStopSchema>>;

/** Which rows there are and what is to be done with them, whoever executes the run: what a request may say too. */
export const taskSchema = z.object({
  /** Path of the manifest, or `-` for `input`; or a pattern with `*`, `?` or `**`. */
  manifest: nameSchema,
  /** Those that are read after it as one, with the same columns or, with `union`, with all of theirs. */
  moreManifests: namesSchema,
  union: z.boolean().optional(),
  /** Path of the output; by default beside the manifest, see `defaultOutputPath`. */
  output: nameSchema.optional(),
  format: z.enum(['csv', 'tsv', 'jsonl', 'json', 'parquet', 'list']).optional(),
  delimiter: textSchema.optional(),
  /** False when a csv's or tsv's first record is none: its columns are `c1`, `c2`, ... then. */
  header: z.boolean().optional(),
  /** Their names then; as many as its first record has cells. */
  columns: namesSchema,
  /** Of a manifest that is text, without a byte order mark: one of `TextDecoder`'s; UTF-8. */
  encoding: textSchema.optional(),
  /** Of a json: the path of the list of its records; by default the one list of objects in it. */
  records: textSchema.optional(),
  /** Which of the manifest's columns a new output has, or has not; an existing one keeps its own. One of them at most. */
  keep: namesSchema,
  drop: namesSchema,
  /** Cells that a spreadsheet would take for formulas are written with an apostrophe before them; for a new output only. */
  escapeFormulas: z.boolean().optional(),
  /** When the run ends in order, the output is rewritten in the order of the manifest, which must not be a pipe. */
  inOrder: z.boolean().optional(),
  /** Whether the output has a column or a line for each prompt; `columns`, and an existing one keeps its own. */
  promptsAs: z.enum(['columns', 'rows']).optional(),
  /** What is put between the items of a list in an answer; `json` writes lists as JSON. `, `. */
  listSeparator: textSchema.optional(),
  urlColumn: textSchema.optional(),
  keyColumn: textSchema.optional(),
  /** What says to people what an image is; a column that is called so. */
  titleColumn: textSchema.optional(),
  baseUrl: textSchema.optional(),
  /** The folder that paths of images are relative to, and that they have to be in; the manifest's. */
  imageRoot: nameSchema.optional(),

  /** Only what is given explicitly; the rest is what the account's queue holds, or `DEFAULT_LIMITS`. */
  limits: limitsSchema.optional(),
  /** Submits of one image at most; 5. */
  attempts: z.int().min(1).optional(),
  /** Milliseconds from a submit to its completion; 20 minutes. */
  deadlineMs: z.number().refine(isDuration, 'expected a duration above 0').optional(),
  /** Images paid for in this run at most. */
  limit: z.int().min(0).optional(),
  /** What the API takes, and what all starts of the run may cost, or how many submits they may make. */
  prices: pricesSchema.optional(),
  maxCost: z.number().positive().optional(),
  maxCalls: z.int().positive().optional(),
  /** Whether the output has the tokens of each row, in two columns. */
  usage: z.boolean().optional(),
  /** Failures with these codes do not make exit code 2. */
  accept: z.array(z.enum(ERROR_CODES)).readonly().optional(),
  /** Percent of the last 50 outcomes that may be failures of the manifest's making; 50. 100 turns it off. */
  stopFailing: z.number().min(0).max(100).optional(),
  /** Rewrite an output once that lacks columns which the manifest has now. */
  newColumns: z.boolean().optional(),
  /** How many images may be paid for again although less than half of the output matches the manifest. */
  payAgain: z.int().min(0).optional(),

  /** The schedule that starts the run, for people who watch. */
  schedule: nameSchema.optional(),
  /** Failed rows are taken up again, the permanent ones too. */
  retryAll: z.boolean().optional(),
  /**
   * Of the rows that are not described only those are taken up that have failed before, and what is in the queue; all
   * others are left. The preview counts them all the same.
   */
  onlyFailed: z.boolean().optional(),
  /** Nothing is paid for: only what the queue holds for this output is waited for and written. */
  collectOnly: z.boolean().optional(),
  /** With `collectOnly`: why the run that is completed ended before its time, which holds as long as rows remain. */
  stoppedBefore: runStopSchema.optional(),
});

/** What `describeManifest` takes; the flags of `bulk-describe run` one to one. */
export interface RunOptions extends ApiOptions, Readonly<z.infer<typeof taskSchema>> {
  /** Where `-` reads from. */
  readonly input?: NodeJS.ReadableStream | undefined;

  /**
   * Files of earlier runs, the oldest first, whose rows count as done: they are not paid for and not written again, and
   * rows that share an image with one of theirs are copied from there. What is failed by the failures files beside them
   * counts as failed before. Those that the run file remembers count too.
   */
  readonly earlierOutputs?: readonly string[] | undefined;

  /** `redis://...`, `rediss://...`, `embedded:<dir>`; by default embedded, in the user's state directory. */
  readonly queue?: string | undefined;
  /** Whether this process submits and polls as well; true. */
  readonly work?: boolean | undefined;
  /** A folder that has a caption's file for each image of the output when the run ends. */
  readonly sidecar?: (CaptionOptions & { readonly folder: string }) | undefined;
  /** Only so many images of the manifest, chosen at random and always the same; the others' rows are left. */
  readonly sample?: number | undefined;
  /** When nothing more is to be submitted: `06:00` for the next such local time, or a date and time as ISO 8601 has it. */
  readonly finishBy?: string | undefined;
  /** Only the preview: nothing is created or paid. */
  readonly dryRun?: boolean | undefined;
  /** With it: the hosts are asked for the images that are to be submitted. */
  readonly checkUrls?: boolean | undefined;
  /** The id of a run that begins with this call; one that is resumed keeps its own. See `newRunId`. */
  readonly run?: string | undefined;

  /**
   * What works beside the run on the same queue (a dashboard, a webhook receiver), which only one process can have
   * when it is the embedded one. Each is started before anything is paid, and returns its undo.
   */
  readonly companions?: readonly Companion[] | undefined;

  /** Aborting it ends the run in order: what is in flight goes back to the queue. */
  readonly signal?: AbortSignal | undefined;
  readonly logger?: Logger | undefined;
  readonly onEvent?: ((event: RunEvent) => void) | undefined;
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** For tests. */
  readonly timing?: Partial<RunTiming> | undefined;
}

/** What there is to do, emitted before anything is paid. */
export interface Preview extends Readonly<Omit<ManifestCounts, 'newImages'>> {
  readonly manifest: string;
  readonly output: string;
  /** Images that are to be submitted, `--limit` considered. */
  readonly toSubmit: number;
  /** Columns without a name and without a cell, which are left out. */
  readonly unnamedColumns: number;
  readonly urlColumn: string;
  readonly limits: Limits;
  /** Whether the manifest was written to while it was counted. */
  readonly hasChanged: boolean;
  /** Milliseconds that submitting them takes, at the configured rate and with what may be in flight. */
  readonly submitMs: number;
  /** About how many, where messages are polled for. */
  readonly polls: number;
  /** How long one takes, whether that is known of the account or assumed, and whether it is what bounds the rate. */
  readonly answers: { readonly ms: number; readonly isMeasured: boolean; readonly isSlower: boolean };
  /** Those to be submitted whose signed URLs expire before. */
  readonly expiring: { readonly images: number; readonly first: SignedImage | undefined };
  /** When it is to end, in epoch milliseconds, and how many images are submitted by then. */
  readonly finishBy: { readonly atMs: number; readonly images: number } | undefined;
  /** What they cost, where that is known. */
  readonly cost: number | undefined;
  /** What their hosts have said, where they were asked. */
  readonly checked?: CheckedUrls | undefined;
}

/** Where a run is; emitted each second. `totalRows`: with `--limit` the images that are paid for. */
export interface Progress extends Readonly<
  Pick<
    RunStatus,
    ('rows' | 'totalRows' | 'described' | 'resumed' | 'copied' | 'failed') | ('perSecond' | 'etaMs' | 'cost')
  >
> {
  /** How many of the total are accounted for. */
  readonly settled: number;
  /** Images of the account in flight at the API, whoever's run they belong to. */
  readonly inFlight: number;
  /** Share of the configured rate that the API lets through, in (0, 1]. */
  readonly share: number;
  /** Why a worker's calls do not reach the API at the moment. */
  readonly trouble?: string | undefined;
}

export type RunEvent =
  /** The locks are held and the files open: from here on a run ends with a receipt. */
  | { readonly type: 'opened'; readonly run: string; readonly manifest: string; readonly output: string }
  | { readonly type: 'preview'; readonly preview: Preview }
  /**
   * Something that a person should know and need not act on. `isOutage`: the queue went away or is back, which others at
   * the same queue report as well.
   */
  | { readonly type: 'notice'; readonly text: string; readonly isOutage?: boolean }
  /** What is being done before rows move: 'creating the embedded queue ...'. */
  | { readonly type: 'phase'; readonly text: string }
  | { readonly type: 'progress'; readonly progress: Progress };

/** The receipt of a run; the fields of `--json`. rows = described + resumed + copied + failed + remaining */
export interface Receipt extends Readonly<Omit<RunCounts, 'failedByCode'>> {
  readonly run: string;
  readonly manifest: string;
  readonly output: string;
  readonly failures: string;
  readonly failed: number;
  /** Left for the next time. */
  readonly remaining: number;
  /** Rows of the output that the manifest does not have (any more); outside the balance. */
  readonly extra: number;
  /** Of those, how many have a key or an image that the output has more often than the manifest. */
  readonly twice: number;
  readonly seconds: number;
  /** What the run has cost over all its starts; only with prices. */
  readonly cost?: number | undefined;
  /** False when the manifest was not read to its end; `rows` counts what was read then. */
  readonly complete: boolean;
  /** Whether the counts agree with one another and with a recount of the files. */
  readonly balanced: boolean;
}

/** How a run ended. */
export interface RunResult {
  readonly preview: Preview;
  /** Undefined after a dry run. */
  readonly receipt: Receipt | undefined;
  /** Where the files disagree with the receipt's counts, one line each; nothing when it is balanced. */
  readonly differences: readonly string[];
  /** Why it ended before its manifest did; undefined when it did not. */
  readonly stop: RunStop | undefined;
  readonly failedByCode: ReadonlyMap<ErrorCode, number>;
  /** The share of the configured rate that the API let through at its end, in (0, 1]. */
  readonly learnedShare?: number | undefined;
  readonly exitCode: number;
}

/** Values for what is not given. */
export const RUN_DEFAULTS = {
  api: 'https://api.thenextleg.io/v2',
  account: 'default',
  queue: 'embedded:',
  attempts: 5,
  deadlineMs: 20 * 60_000,
  stopFailing: 50,
} as const;

/** How often and how long a run looks, waits and gives up; tests look more often. All in milliseconds. */
export const RUN_TIMING = {
  /** Progress, the workers' state. */
  tickMs: 1000,
  /** Whether pending images still have their jobs; two looks in a row have to agree. */
  reconcileEveryMs: 30_000,
  /** After so long without any worker there is a notice. */
  noWorkerNoticeMs: 10_000,
  /** The queue may be away when a run ends: then its jobs stay as they are. */
  closeDeadlineMs: 10_000,
  /** How much of the rate a run may have waiting in the queue: another run that comes waits so long at most. */
  windowMs: 60_000,
  /** An API that has been down for so long, with no answer between, ends the run. */
  downLimitMs: 15 * 60_000,
};

export type RunTiming = Readonly<typeof RUN_TIMING>;
