import { readFile } from 'node:fs/promises';
import { parse } from 'csv-parse/sync';
import { expect } from 'vitest';
import { z } from 'zod';
import { type CliProcess, startCli } from '../helpers/cli.js';
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
  const { workspace, api, queue, rate = '200/s', maxInFlight = 8, flags = [], env } = options;
  const limits = ['--rate', rate, '--poll-rate', '500/s', '--max-in-flight', String(maxInFlight)];
  const files = ['m.csv', '-o', 'out.csv'];
  const about = ['--api', api, '--queue', queue, ...limits, ...flags];
  return startCli(['run', ...files, ...about, '--json', '--no-progress'], {
    cwd: workspace.path,
    env: { DESCRIBE_API_TOKEN: 'any', ...env },
  });
}

/** The receipt of a run that has ended with this exit code and without a defect. */
export async function endOf(run: CliProcess, code = 0): Promise<{ receipt: ReceiptJson; stderr: string }> {
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
