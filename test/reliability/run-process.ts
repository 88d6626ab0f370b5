import { on } from 'node:events';
import { watch } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { parse } from 'csv-parse/sync';
import { expect } from 'vitest';
import { z } from 'zod';
import { type CliOptions, type CliProcess, runCommand, startCli } from '../helpers/cli.js';
import type { Workspace } from '../helpers/workspace.js';

const receiptSchema = z.object({
  rows: z.number(),
  described: z.number(),
  resumed: z.number(),
  copied: z.number(),
  failed: z.number(),
  remaining: z.number(),
  submits: z.number(),
  reattached: z.number(),
  maybePaidTwice: z.number(),
  balanced: z.boolean(),
});
export type ReceiptJson = z.infer<typeof receiptSchema>;

export interface RunProcessOptions {
  readonly workspace: Workspace;
  readonly api: string;
  readonly queue: string;
  readonly rate?: string;
  readonly maxInFlight?: number;
  /** More flags. */
  readonly flags?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

/** `bulk-describe run m.csv` as a process; twice the same options are the same command. */
export function startRun(options: RunProcessOptions): CliProcess {
  return startCli(...commandOf(options));
}

/** The same command to its end, in a process that is there already: see `runCommand`. */
export function runAgain(options: RunProcessOptions): Pick<CliProcess, 'ended'> {
  return { ended: runCommand(...commandOf(options)) };
}

function commandOf(options: RunProcessOptions): [args: string[], options: CliOptions] {
  const { workspace, api, queue, rate = '200/s', maxInFlight = 8, flags = [], env } = options;
  const limits = ['--rate', rate, '--poll-rate', '500/s', '--max-in-flight', String(maxInFlight)];
  const files = ['m.csv', '-o', 'out.csv'];
  const about = ['--api', api, '--queue', queue, ...limits, ...flags];
  const command = { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any', ...env } };
  return [['run', ...files, ...about, '--json', '--no-progress'], command];
}

/** The receipt of a run that has ended with this exit code and without a defect. */
export async function endOf(
  run: Pick<CliProcess, 'ended'>,
  code = 0,
): Promise<{ receipt: ReceiptJson; stderr: string }> {
  const end = await run.ended;
  expect(end.stderr).not.toMatch(/defect|Unhandled|unhandled/);
  expect([end.code, end.signal], end.stderr).toEqual([code, null]);
  const receipt = receiptSchema.parse(JSON.parse(end.stdout));
  expect(receipt.balanced).toBe(true);
  return { receipt, stderr: end.stderr };
}

/** Ends it as a crash would. */
export async function kill9(run: CliProcess): Promise<void> {
  run.child.kill('SIGKILL');
  expect((await run.ended).signal).toBe('SIGKILL');
}

/** Starts it, and ends it as a crash would as soon as a new file of such a name is in its folder. */
export async function killWhile(folder: string, pattern: RegExp, start: () => CliProcess): Promise<void> {
  const before = new Set(await readdir(folder));
  // What is there for a moment is told of; whoever asks from time to time may miss it.
  const watcher = watch(folder);
  const changes = on(watcher, 'change', { close: ['close'], signal: AbortSignal.timeout(60_000) });
  const run = start();
  run.child.once('exit', () => watcher.close());
  for await (const [, name] of changes) if (pattern.test(String(name)) && !before.has(String(name))) break;
  await kill9(run);
}

/** The ids of the output's rows, in order; empty when there is no output yet. */
export async function describedIds(workspace: Workspace): Promise<number[]> {
  const text = await readFile(workspace.at('out.csv'), 'utf8').catch(() => '');
  const rows = z
    .array(z.record(z.string(), z.string()))
    .parse(parse(text.slice(0, text.lastIndexOf('\n') + 1), { columns: true, relax_column_count: true }));
  return rows.map((row) => Number(row['id'])).sort((a, b) => a - b);
}

/** 1 to `count`. */
export function allIds(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}
