import { settledRows, speedText } from '../dashboard/texts.js';
import { findRun } from '../service/known-run.js';
import { type CheckedStatus, PAUSES, type Trouble, readCheckedStatus } from '../service/troubles.js';
import {
  type AccountView,
  type RequestsView,
  type RunView,
  type ServiceStatus,
  type WorkerView,
  adviceFor,
} from '../service/views.js';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { formatDuration } from '../shared/limits.js';
import { createLogger } from '../shared/log.js';
import { count, plural } from '../shared/plural.js';
import type { ServerStatus } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import type { OptionsOf } from './options.js';
import { withSharedQueue } from './process.js';
import { localEnd } from './summary.js';
import { Screen } from './terminal.js';
import { fields, listOf, nearPath, printable, wrapped } from './text.js';

const REDRAW_MS = 1000;
const PATH_LENGTH = 300;
const BLOCK_EVERY_MS = 10_000;
/** A queue that is away is said to be away after so long. */
const READ_DEADLINE_MS = 5000;

/** `bulk-describe status [run]`. @returns 0, or 1 when there is no such run; with `--check` 2 for what a person has to see to */
export function status(options: OptionsOf<'status'>, run: string | undefined): Promise<number> {
  const { json = false, check = false, logLevel = 'warn', queue } = options;
  if (check && (run !== undefined || options.watch === true))
    throw new UsageError(
      '--check looks once at all that goes on at the queue: leave the run and --watch away',
    );
  const show = (seen: CheckedStatus) =>
    json ? [jsonOf(seen, run)] : check ? checkLines(seen, troublesToSeeTo(seen)) : linesOf(seen, run);
  const interrupted = 'interrupted: the queue has not answered';
  const about = { command: 'status', queue, logger: createLogger(logLevel), isReader: true, interrupted };
  return withSharedQueue(about, async ({ connection, signal }) => {
    if (options.watch === true) {
      await watch(connection, show, signal, json);
      return 0;
    }
    const seen = await readOrExplain(connection, signal);
    if (typeof seen === 'string') {
      signal.throwIfAborted();
      throw new FatalError(seen);
    }
    const { isTTY, columns } = process.stdout;
    // A terminal breaks lines in the middle of words.
    const lines = isTTY && !json ? show(seen).flatMap((line) => wrapped(line, columns)) : show(seen);
    process.stdout.write(`${lines.join('\n')}\n`);
    return check && troublesToSeeTo(seen).length > 0 ? 2 : 0;
  });
}

/** What does not end by itself. */
function troublesToSeeTo({ troubles }: CheckedStatus): Trouble[] {
  return troubles.filter(({ until }) => until === undefined);
}

function linesOf(status: CheckedStatus, run: string | undefined): string[] {
  return run === undefined ? statusLines(status) : runPageLines(findRun(status.runs, run), status);
}

function jsonOf(status: CheckedStatus, run: string | undefined): string {
  // `schedule list --json` has the schedules.
  const runs = run === undefined ? status.runs : [findRun(status.runs, run)];
  return JSON.stringify({ ...status, runs, schedules: undefined });
}

/** Redraws each second on a terminal; elsewhere writes a block every ten seconds. Ends with the signal. */
async function watch(
  connection: QueueConnection,
  show: (status: CheckedStatus) => string[],
  interrupted: AbortSignal,
  isJson: boolean,
): Promise<void> {
  const reader = new AbortController();
  // Nobody reads any more: `status --watch | head` ends as other tools do.
  process.stdout.once('error', () => reader.abort());
  const signal = AbortSignal.any([interrupted, reader.signal]);
  const screen = process.stdout.isTTY && !isJson ? new Screen(process.stdout) : undefined;
  const write = (lines: readonly string[]) => {
    if (screen === undefined) process.stdout.write(`${lines.join('\n')}\n${isJson ? '' : '\n'}`);
    else screen.show(lines);
  };
  try {
    do {
      const status = await readOrExplain(connection, signal);
      if (signal.aborted) return;
      if (typeof status !== 'string') write(show(status));
      else if (isJson) process.stderr.write(`${status}\n`);
      else write([status]);
    } while (await sleep(screen === undefined ? BLOCK_EVERY_MS : REDRAW_MS, signal));
  } finally {
    screen?.end();
  }
}

/** The queue may be away for a while: that is said, and it is looked at again. */
async function readOrExplain(
  connection: QueueConnection,
  signal: AbortSignal,
): Promise<CheckedStatus | string> {
  try {
    const reading = unlessAborted(readCheckedStatus(connection), AbortSignal.timeout(READ_DEADLINE_MS));
    return await unlessAborted(reading, signal);
  } catch (error) {
    const why = error instanceof DOMException ? 'no answer in 5 s' : messageOf(error);
    return `${localTime(Date.now())} waiting for ${connection.label}: ${printable(why)}`;
  }
}

/** What goes on at a queue, as lines for people; what others wrote is made safe for a terminal. */
function statusLines(status: CheckedStatus): string[] {
  const { runs, accounts, requests, homes: servers } = status;
  return [
    `queue ${printable(status.queue)} at ${localTime(status.at)}`,
    ...status.troubles.map((trouble) => troubleLine(trouble, status.at)),
    '',
    runs.length === 0 ? 'no runs in the last day' : 'runs of the last day',
    ...runs.flatMap((run) => runLines(run, status).map((line) => `  ${line}`)),
    ...requestLines(requests, status.at),
    ...(servers.length === 0 ? [] : ['', 'servers']),
    ...servers.map((server) => `  ${serverLine(server, status.at)}`),
    '',
    accounts.length === 0 ? 'no accounts: nobody has worked here' : 'accounts',
    ...accounts.flatMap((account) => accountLines(account, status.at).map((line) => `  ${line}`)),
  ];
}

/** All that is known of one run. */
function runPageLines(run: RunView, status: CheckedStatus): string[] {
  const account = accountOf(run, status);
  const failures = Object.entries(run.failedByCode ?? {});
  const isGoing = run.state === 'running' || run.state === 'silent';
  const ofAccount = account === undefined ? [] : accountLines(account, status.at);
  return [
    `run ${printable(run.run)} at ${localTime(status.at)}`,
    ...status.troubles
      .filter(({ about }) => about === run.account)
      .map((trouble) => troubleLine(trouble, status.at)),
    ...fields(
      ['state', stateText(run, status)],
      ['manifest', path(run.manifest)],
      ['output', path(run.output)],
      ['schedule', run.schedule !== undefined && printable(run.schedule)],
      ['process', `${printable(run.host)}, pid ${run.pid}, since ${localTime(run.startedAt, status.at)}`],
      ['rows', rowsText(run)],
      ['counts', countsText(run)],
      [
        'failures',
        failures.length > 0 && listOf(failures.map(([code, n]) => `${count(n)} ${printable(code, 40)}`)),
      ],
      ['images', `${count(run.inFlight)} in flight, ${count(run.waiting)} waiting`],
      ['speed', isGoing && listOf([rateText(run) || 'nothing yet', etaText(run, status.at)])],
      ...ofAccount.map((line, i) => [i === 0 ? 'account' : '', line] as const),
    ),
  ];
}

/** What `--check` prints: a line for each trouble, or that there is none. */
function checkLines(status: CheckedStatus, troubles: readonly Trouble[]): string[] {
  if (troubles.length > 0) return troubles.map((trouble) => troubleLine(trouble, status.at));
  const { runs, accounts, homes: servers } = status;
  const going = runs.filter(({ state }) => state === 'running').length;
  const workers = accounts.reduce((sum, account) => sum + account.workers.length, 0);
  const counts = [plural(going, 'run'), plural(workers, 'worker'), plural(servers.length, 'server')];
  return [`ok: ${listOf(counts)}, ${printable(status.queue)}`];
}

/** `PAUSED: token refused since 02:00:14 (401 ...), api.example.com@default`. */
function troubleLine({ kind, about, text, reason, since, until }: Trouble, nowMs: number): string {
  const begun = since === undefined ? '' : ` since ${localTime(since, nowMs)}`;
  const ends = until === undefined ? '' : `, goes on in ${Math.ceil((until - nowMs) / 1000)} s`;
  const why = reason === '' ? '' : ` (${printable(reason)})`;
  const where = kind === 'silent' ? path(about) : printable(about);
  return `${kind in PAUSES ? 'PAUSED' : 'TROUBLE'}: ${printable(text)}${begun}${ends}${why}, ${where}`;
}

function runLines(run: RunView, status: ServiceStatus): string[] {
  const account = accountOf(run, status);
  const isOver = run.state === 'ended';
  const doing = listOf([
    rowsText(run),
    `${count(run.described + run.resumed + run.copied)} described`,
    run.failed > 0 && `${count(run.failed)} failed`,
    isOver && (run.ended?.remaining ?? 0) > 0 && `${count(run.ended?.remaining ?? 0)} remaining`,
    (!isOver || run.inFlight > 0) && `${count(run.inFlight)} in flight`,
    (!isOver || run.waiting > 0) && `${count(run.waiting)} waiting`,
    run.state === 'running' && rateText(run),
    run.state === 'running' &&
      account !== undefined &&
      (account.share < 1
        ? `learned rate ${account.learnedRate} of ${account.rate}`
        : `at most ${account.rate}`),
    etaText(run, status.at),
  ]);
  return [
    `${printable(run.run, 40)}  ${path(run.output)}`,
    `    ${listOf([stateText(run, status), run.schedule !== undefined && `schedule ${printable(run.schedule)}`])}`,
    `    ${doing}`,
  ];
}

function stateText(run: RunView, status: ServiceStatus): string {
  const process = `${printable(run.host, 60)}, pid ${run.pid}`;
  const ago = formatDuration(Math.max(0, status.at - run.seenAt));
  const cancelled = run.cancelled === true ? 'cancelled; ' : '';
  const advice = adviceFor(run, status);
  const then = advice === undefined ? '' : `; ${advice}`;
  switch (run.state) {
    case 'running':
      if (cancelled !== '') return `${cancelled}what is in flight is finished on ${process}`;
      return run.stopping === undefined
        ? `running on ${process}`
        : `ending on ${process}: ${printable(run.stopping)}`;
    case 'silent': {
      const who = run.served ? 'server' : 'coordinator';
      return `${cancelled}silent for ${ago}: its ${who} (${process}) has died or lost the queue${then}`;
    }
    case 'waiting':
      return cancelled === ''
        ? `waits for a server (the last one has left it ${ago} ago)${then}`
        : `${cancelled}waits for a server, which collects what is in flight${then}`;
    case 'ended': {
      const { exitCode, reason } = run.ended ?? { exitCode: 1, reason: undefined };
      if (cancelled !== '') return `cancelled ${ago} ago, exit code ${exitCode}`;
      return `ended ${ago} ago, exit code ${exitCode}${reason === undefined ? '' : `: ${printable(reason)}`}`;
    }
  }
}

function rowsText(run: RunView): string {
  const settled = count(settledRows(run));
  if (run.totalRows === undefined) return `${settled} of ${count(run.rows)} rows read`;
  return `${settled}/${count(run.totalRows)} rows`;
}

function rateText({ perSecond }: RunView): string {
  return perSecond === 0 ? '' : speedText(perSecond);
}

function countsText({ described, resumed, copied, failed, ended }: RunView): string {
  const counts = Object.entries({ described, resumed, copied, failed, remaining: ended?.remaining });
  return listOf(counts.map(([name, value]) => value !== undefined && `${count(value)} ${name}`));
}

function etaText({ state, etaMs }: RunView, nowMs: number): string {
  if (state !== 'running' || etaMs === undefined) return '';
  return `${formatDuration(etaMs)} left, until ${localEnd(etaMs, new Date(nowMs))}`;
}

function requestLines({ executing, waiting, next }: RequestsView, nowMs: number): string[] {
  if (executing + waiting === 0) return [];
  const more = waiting - next.length;
  return [
    '',
    `requests: ${count(executing)} executing, ${count(waiting)} waiting for a server`,
    ...next.map(({ manifest, output, schedule, since }) => {
      const to = output === undefined ? '' : ` -> ${path(output)}`;
      const by = schedule === undefined ? '' : `, schedule ${printable(schedule)}`;
      return `  ${path(manifest)}${to}${by}, for ${formatDuration(Math.max(0, nowMs - since))}`;
    }),
    ...(more > 0 ? [`  and ${count(more)} more`] : []),
  ];
}

function serverLine({ host, pid, root, since, runs }: ServerStatus, nowMs: number): string {
  return listOf([
    `${printable(host, 60)} pid ${pid}`,
    `since ${localTime(since, nowMs)}`,
    `files below ${printable(root, PATH_LENGTH)}`,
    runs.length === 0 ? 'idle' : plural(runs.length, 'run'),
  ]);
}

function accountLines(account: AccountView, nowMs: number): string[] {
  const { rate, learnedRate, pollRate, maxInFlight, share, inFlight, waiting, workers } = account;
  const limits = listOf([
    `submits ${rate}`,
    share < 1 && `slowed by the API to ${learnedRate}`,
    `polls ${pollRate}`,
    `${count(inFlight)} of ${count(maxInFlight)} in flight`,
    `${count(waiting)} waiting`,
    plural(workers.length, 'worker'),
  ]);
  return [
    `${printable(account.account)}: ${limits}`,
    ...workers.map((worker) => `  ${workerLine(worker, nowMs)}`),
  ];
}

const WORKER_STATES = {
  working: 'working',
  down: 'API down',
  token: 'token refused',
  quota: 'quota spent',
  'set-up': 'describes nothing',
} as const;

function workerLine({ host, pid, state, reason, since, share, trouble }: WorkerView, nowMs: number): string {
  return listOf([
    `${printable(host, 60)} pid ${pid}`,
    state === 'silent' ? 'silent' : `${WORKER_STATES[state]} since ${localTime(since, nowMs)}`,
    share < 1 && `${Math.round(share * 100)} % of the rate`,
    printable(reason || (trouble ?? '')),
  ]);
}

function accountOf(run: RunView, { accounts }: ServiceStatus): AccountView | undefined {
  return accounts.find(({ queueName }) => queueName === run.queueName);
}

/** In local time; with the day where it is another one. */
function localTime(ms: number, nowMs = ms): string {
  const date = new Date(ms);
  const time = date.toLocaleTimeString('en-GB');
  if (date.toDateString() === new Date(nowMs).toDateString()) return time;
  return `${date.toLocaleDateString('en-GB', { weekday: 'short', day: 'numeric', month: 'short' })} ${time}`;
}

function path(text: string): string {
  return printable(nearPath(text), PATH_LENGTH);
}
