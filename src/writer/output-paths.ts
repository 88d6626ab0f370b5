import { existsSync, lstatSync, readlinkSync, realpathSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { UsageError, isSystemError } from '../shared/errors.js';
import { acquireFileLock } from '../shared/file-lock.js';
import type { UndoStack } from '../shared/undo.js';
import { removeUnfinished } from './durable-file.js';

/** All files of one run, absolute. */
export interface RunPaths {
  readonly output: string;
  /** Where its rows are while a run goes on; the output itself unless that is Parquet. */
  readonly working: string;
  readonly failures: string;
  /** Failures of a run that is still going on or was killed. */
  readonly failuresPartial: string;
  readonly runFile: string;
  readonly lock: string;
}

/** Endings that a manifest's name loses; `.gz` may follow. */
const MANIFEST_ENDING = /(?:\.(?:csv|tsv|jsonl|ndjson|json|parquet|list|txt))?(?:\.gz)?$/i;

/** The output of a manifest, beside it: `a/b.csv.gz` -> `a/b.prompts.csv`, or `a/b.simulated.csv`. */
export function defaultOutputPath(manifest: string, options: { simulator: boolean }): string {
  // Folders of images may be called so.
  const path = /(^|\/)\.{1,2}\/?$/.test(manifest) ? resolve(manifest) : manifest;
  const base = basename(path);
  // A file that is named like an ending (`.csv`) keeps it.
  const stem = base.replace(MANIFEST_ENDING, '') || base;
  return join(dirname(path), `${stem}${options.simulator ? '.simulated' : '.prompts'}.csv`);
}

/** A file's real name, whether it is there yet or not: two links to one output are one output, with one lock. */
export function realName(path: string): string {
  const absolute = resolve(path);
  const folder = dirname(absolute);
  try {
    return realpathSync.native(absolute);
  } catch (error) {
    // What is not there yet will be where a link to it leads, and else in its folder. Links in a circle lead nowhere.
    const isGone = isSystemError(error) && error.code === 'ENOENT';
    const isLink = isGone && lstatSync(absolute, { throwIfNoEntry: false })?.isSymbolicLink() === true;
    if (isLink) return realName(resolve(realName(folder), readlinkSync(absolute)));
    return folder === absolute ? absolute : join(realName(folder), basename(absolute));
  }
}

/** The files that belong to an output. */
export function runPaths(output: string): RunPaths {
  const failures = output.replace(/(?:\.csv)?$/i, (ending) => `.failed${ending || '.csv'}`);
  return {
    output,
    working: workingPath(output),
    failures,
    failuresPartial: partialPath(failures),
    runFile: `${output}.run`,
    lock: `${output}.lock`,
  };
}

/**
 * Locks an output, and clears away what a kill has left half written beside it.
 * @throws {BusyError} when another process has it
 */
export async function lockOutput({ lock, ...files }: RunPaths, undo: UndoStack): Promise<void> {
  const held = await acquireFileLock(lock, { what: `the output ${files.output}` });
  undo.defer(() => held.release());
  await removeUnfinished(Object.values<string>(files));
}

/** What a run appends to: a Parquet file can only be written as a whole. */
export function workingPath(output: string): string {
  return /\.parquet$/i.test(output) ? `${output}.jsonl` : output;
}

/** The output that a working file belongs to; of other files themselves. */
export function outputOf(path: string): string {
  return path.replace(/(\.parquet)\.jsonl$/i, '$1');
}

/** The file that holds an output's rows now: where a run goes on, or was killed, the working file. */
export function rowsPath(output: string): string {
  const working = workingPath(output);
  return existsSync(working) ? working : output;
}

/** Where the failures of a run that has not ended are kept. */
export function partialPath(failures: string): string {
  return `${failures}.partial`;
}

/**
 * Makes sure that a run does not write over its own manifest, by whatever name.
 * @throws {UsageError} when one of the run's files is the manifest
 */
export async function assertManifestIsSafe(manifest: string, paths: RunPaths): Promise<void> {
  for (const path of Object.values<string>({ ...paths })) {
    if (!(await isSameFile(manifest, path))) continue;
    const role = path === paths.output ? 'the output' : `a file that belongs to the output ${paths.output}`;
    throw new UsageError(`${path} is both the manifest and ${role}: name another output with -o`);
  }
}

/** What is not there, or cannot be looked at, is no file that could be read. */
export async function isSameFile(one: string, other: string): Promise<boolean> {
  const [oneStats, otherStats] = await Promise.all(
    [one, other].map((path) => stat(path).catch(() => undefined)),
  );
  return oneStats !== undefined && oneStats.dev === otherStats?.dev && oneStats.ino === otherStats.ino;
}
