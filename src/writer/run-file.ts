import { randomInt } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { UsageError, isSystemError } from '../shared/errors.js';
import { runSeriesSchema } from '../shared/published.js';
import { parseJson } from '../shared/parse-json.js';
import { describeFileError, replaceFile } from './durable-file.js';
import { isSameFile, runPaths } from './output-paths.js';

const runFileSchema = z.object({
  version: z.literal(1),
  /** The run's id. */
  run: z.string().regex(/^[a-z][a-z0-9]{11}$/),
  /** The queue's URL without its password. */
  queue: z.string(),
  account: z.string(),
  /** Whether the prompts are the built-in simulator's. */
  simulator: z.boolean(),
  urlColumn: z.string(),
  keyColumn: z.string().optional(),
  baseUrl: z.string().optional(),
  /** Where the local images were at its last start. */
  imageRoot: z.string().optional(),
  /** Whether the manifest is a folder. */
  folder: z.boolean().optional(),
  /** Which of the manifest's columns the output has, or has not, where these are not all. */
  keep: z.array(z.string()).readonly().optional(),
  drop: z.array(z.string()).readonly().optional(),
  /** Between the cells of the output, where it is CSV, and of the failures file. */
  delimiter: z
    .string()
    .regex(/^[\t -!#-~]$/)
    .optional(),
  escapeFormulas: z.boolean().optional(),
  promptsAs: z.enum(['columns', 'rows']).optional(),
  /** The output's columns for answers, where they are not the four prompts. */
  answerColumns: z.array(z.string()).optional(),
  usage: z.boolean().optional(),
  /** With the row's columns in it: it tells images apart then. */
  prompt: z.string().optional(),
  /** What all starts of the run have spent, for `--max-cost` and `--max-calls`. */
  spent: z
    .object({
      submits: z.number(),
      answered: z.number(),
      unusable: z.number().default(0),
      inputTokens: z.number(),
      outputTokens: z.number(),
    })
    .optional(),
  /** All starts of the run over their time. It is for charts alone: what cannot be read is begun anew. */
  series: runSeriesSchema.optional().catch(undefined),
  /** Files whose rows count as done; relative ones to the output's folder. */
  earlierOutputs: z.array(z.string()).optional(),
  /** The output that the run was last written to: where it is still there, this file is a copy. */
  output: z.string().optional(),
  /** Whether rows of the run may still be in the queue. */
  open: z.boolean(),
  /** ISO 8601, UTC. */
  createdAt: z.string(),
});

/** `<output>.run`: what the same command needs to resume a run. It moves with the output. */
export type RunFile = z.infer<typeof runFileSchema>;

/**
 * Reads a run file.
 * @returns undefined when there is none
 * @throws {UsageError} when it is not what this program writes
 */
export async function readRunFile(path: string): Promise<RunFile | undefined> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw new UsageError(`the run file ${path} cannot be read: ${describeFileError(error)}`, {
      cause: error,
    });
  });
  if (text === undefined) return undefined;
  const run = runFileSchema.safeParse(parseJson(text));
  if (run.success) return run.data;
  const field = run.error.issues[0]?.path.join('.') ?? '';
  const where = field === '' ? 'it is no JSON object' : `its field ${field} is wrong or missing`;
  throw new DamagedRunFileError(`the run file ${path} cannot be used: ${where}`);
}

/** Which run an output belongs to cannot be read. */
export class DamagedRunFileError extends UsageError {
  override name = 'DamagedRunFileError';
}

/**
 * Refuses the run file of another output that is still there: two runs with one id would take each other's results.
 * @throws {UsageError}
 */
export async function refuseCopiedRunFile(
  path: string,
  output: string,
  { output: other, run }: RunFile,
): Promise<void> {
  if (other === undefined || other === output) return;
  const itsFile = runPaths(other).runFile;
  const original = await readRunFile(itsFile).catch(() => undefined);
  // One file under two names is no copy.
  if (original?.run !== run || (await isSameFile(itsFile, path))) return;
  throw new UsageError(
    `${path} is the run file of ${other}, which is still there: remove it to begin a run of its own, or move both files together`,
  );
}

/**
 * Writes a run file, atomically, and waits until it is on disk.
 * @throws {FatalError} when it cannot be written
 */
export async function writeRunFile(path: string, run: RunFile): Promise<void> {
  await replaceFile(path, (handle) => handle.writeFile(`${JSON.stringify(run, null, 2)}\n`));
}

/** A new random run id: a letter, then 11 letters and digits. */
export function newRunId(): string {
  const letters = 'abcdefghijklmnopqrstuvwxyz';
  const all = `${letters}0123456789`;
  const pick = (from: string) => from.charAt(randomInt(from.length));
  return pick(letters) + Array.from({ length: 11 }, () => pick(all)).join('');
}
