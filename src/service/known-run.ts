import { basename } from 'node:path';
import { UsageError } from '../shared/errors.js';
import { nearest } from '../shared/nearest.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { type PublishedRun, listRuns } from '../shared/published.js';
import { realName, runPaths } from '../writer/output-paths.js';
import { type RunFile, readRunFile } from '../writer/run-file.js';
import {
  KEPT_REQUESTS,
  type KeptRequest,
  type RunRequestJob,
  openedRun,
  queuedRequests,
} from './run-request.js';

/** What is known of a run, from its server, from the runs queue, and from the run file beside its output. */
export interface FoundRun {
  /** Undefined for a request that no server has begun. */
  readonly run: string | undefined;
  readonly output: string;
  readonly status?: PublishedRun | undefined;
  /** Its request in the runs queue, as long as that is not over. */
  readonly job?: RunRequestJob | undefined;
  readonly kept?: KeptRequest | undefined;
  readonly file?: RunFile | undefined;
}

const MOST_SHOWN = 5;

/**
 * Finds a run by its id, or by its output's path: one of this machine, or as its server writes it. Of several runs of one
 * output the newest counts.
 * @throws {UsageError} with the nearest known ones when there is none, or with all when several outputs are meant
 */
export async function findKnownRun(connection: QueueConnection, name: string): Promise<FoundRun> {
  const path = realName(name);
  const file = await readRunFile(runPaths(path).runFile);
  const [statuses, requests, kept] = await Promise.all([
    listRuns(connection.store),
    queuedRequests(connection),
    KEPT_REQUESTS.list(connection.store),
  ]);
  // A schedule's next run has not begun.
  const jobs = requests.filter(({ job }) => job.repeatJobKey === undefined || job.processedOn !== undefined);
  const known = collect(statuses, jobs, kept);
  // Runs of which nothing but their request is left may have lost their outputs long ago.
  const recent = known.filter(({ status, job }) => status !== undefined || job !== undefined);
  const exact = known.find((run) => isNamed(run, name, path) || (file !== undefined && run.run === file.run));
  const found = exact ?? findByEnd(recent, name) ?? findByEnd(known, name);
  if (found !== undefined) return { ...found, file };
  if (file === undefined) throw unknownRun(name, known);
  return { run: file.run, output: path, file };
}

type NamedRun = Pick<FoundRun, 'run' | 'output' | 'job'>;

function isNamed({ run, output, job }: NamedRun, name: string, path: string): boolean {
  return [run, job?.id, output].includes(name) || output === path;
}

/**
 * The newest run of the output that a file's name, or the end of a path, means.
 * @param runs the newest first
 * @throws {UsageError} when several outputs are meant
 */
function findByEnd<R extends NamedRun>(runs: readonly R[], name: string): R | undefined {
  const end = name.replace(/^\.\//, '');
  const meant = runs.filter(({ output }) => output === end || output.endsWith(`/${end}`));
  const newest = meant.filter(
    (run, index) => meant.findIndex(({ output }) => output === run.output) === index,
  );
  if (newest.length > 1) {
    throw new UsageError(`${name} may be ${listed(newest)}: name the run by its id`);
  }
  return newest[0];
}

/**
 * Finds one of the published runs, by its id or its output's path or name; of several runs of one output the newest.
 * @param runs the newest first
 * @throws {UsageError} when there is none, or several outputs could be meant
 */
export function findRun<R extends NamedRun>(runs: readonly R[], name: string): R {
  const path = realName(name);
  const found = runs.find((run) => isNamed(run, name, path)) ?? findByEnd(runs, name);
  if (found !== undefined) return found;
  throw new UsageError(
    `no run ${name} in the last day: name it by its id or its output's path, as \`bulk-describe status\` shows them`,
  );
}

/** One entry for each run, whoever knows of it; the newest first. */
function collect(
  statuses: readonly PublishedRun[],
  jobs: Awaited<ReturnType<typeof queuedRequests>>,
  kept: readonly KeptRequest[],
): FoundRun[] {
  const runs = new Map<string, FoundRun>();
  for (const status of statuses) runs.set(status.run, { run: status.run, output: status.output, status });
  for (const each of kept) {
    const { run, request } = each;
    const output = request.output ?? request.manifest;
    runs.set(run, { run, output, ...runs.get(run), kept: each });
  }
  const justAsked: FoundRun[] = [];
  for (const { job, names } of [...jobs].sort((a, b) => b.job.timestamp - a.job.timestamp)) {
    const { run, output } = openedRun(job) ?? { run: undefined, output: names.output ?? names.manifest };
    const key = run ?? [...runs.values()].find((known) => known.output === output)?.run ?? '';
    const known = runs.get(key);
    if (known === undefined) justAsked.push({ run, output, job });
    else runs.set(key, { ...known, job });
  }
  return [...justAsked, ...runs.values()];
}

function unknownRun(name: string, known: readonly FoundRun[]): UsageError {
  if (known.length === 0) return new UsageError(`no run ${name} is known at this queue, nor any other`);
  const names = known.flatMap(({ run, output }) => [run ?? '', output, basename(output)]);
  const near = nearest(name, names);
  const hint = near === undefined ? '' : `did you mean ${near}? `;
  return new UsageError(`no run ${name} is known at this queue: ${hint}known are ${listed(known)}`);
}

function listed(runs: readonly NamedRun[]): string {
  const shown = runs
    .slice(0, MOST_SHOWN)
    .map(({ run, job, output }) => `${run ?? job?.id ?? ''} (${output})`);
  const more = runs.length - shown.length;
  return `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
