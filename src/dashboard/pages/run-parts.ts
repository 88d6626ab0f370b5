import { formatDuration } from '../../shared/limits.js';
import type { AccountView, RunView } from '../../service/views.js';
import type { RunStatus } from '../../shared/published.js';
import { fileNameOf } from '../texts.js';
import { type Html, html } from './html.js';

/** A run as the pages show it, and what is true of its account for all of its runs together. */
export interface RunOnPage {
  readonly status: RunView;
  readonly account: AccountView;
  readonly nowMs: number;
}

/** Rows that are accounted for. */
function settledRows({ described, resumed, copied, failed }: RunStatus): number {
  return described + resumed + copied + failed;
}

export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** A run's state, as people say it. */
export function stateBadge({ status: { state, ended } }: RunOnPage): Html {
  if (state === 'running') return html`<span class="state running">running</span>`;
  if (state === 'silent' || state === 'waiting') return html`<span class="state silent">${state}</span>`;
  if (ended?.exitCode === 0) return html`<span class="state ended">done</span>`;
  const word =
    ended?.exitCode === 130 ? 'interrupted' : ended?.exitCode === 2 ? 'done, some failed' : 'stopped';
  return html`<span class="state troubled">${word}</span>`;
}

/** How far a run is: described, copied and failed rows of all there are. */
export function progressBar({ status }: RunOnPage): Html {
  const total = Math.max(1, status.totalRows ?? status.rows);
  const parts = [
    { name: 'described', rows: status.described + status.resumed },
    { name: 'copied', rows: status.copied },
    { name: 'failed', rows: status.failed },
  ];
  let before = 0;
  const bars = parts.map(({ name, rows }) => {
    const from = before;
    before += rows;
    return html`<rect
      class="${name}"
      x="${percent(from, total)}"
      width="${percent(rows, total)}"
      height="100%"
    />`;
  });
  const label = `${count(settledRows(status))} of ${count(total)} rows`;
  return html`<svg class="bar" role="img" aria-label="${label}">
    <title>${label}</title>
    ${bars}
  </svg>`;
}

function percent(part: number, whole: number): string {
  return `${((100 * Math.min(part, whole)) / whole).toFixed(2)}%`;
}

/** The numbers of a run. */
export function facts(view: RunOnPage): Html {
  const { status, account } = view;
  const { state } = status;
  const total = status.totalRows;
  const isRunning = state === 'running';
  return html`<dl class="facts">
    ${fact('Rows', total === undefined ? `${count(settledRows(status))} so far` : `${count(settledRows(status))} of ${count(total)}`)}
    ${fact('Described', count(status.described))}
    ${status.resumed > 0 && fact('Resumed', count(status.resumed))}
    ${status.copied > 0 && fact('Copied', count(status.copied))}
    <div class="failed">
      <dt>Failed</dt>
      <dd class="${status.failed > 0 ? 'some' : ''}">${count(status.failed)}</dd>
    </div>
    ${(status.ended?.remaining ?? 0) > 0 && fact('Left for later', count(status.ended?.remaining ?? 0))}
    ${isRunning && fact('In flight', ofLimit(account.inFlight, account.maxInFlight))}
    ${isRunning && fact('Waiting', count(account.waiting))}
    ${(isRunning || state === 'ended') && fact('Speed', speed(status.perSecond))}
    ${fact('Rate', account.rate)} ${account.share < 1 && fact('The API lets through', account.learnedRate)}
    ${isRunning && fact('Left', status.etaMs === undefined ? '…' : formatDuration(status.etaMs))}
    ${fact(isRunning ? 'Since' : 'Ran', ran(view))}
  </dl>`;
}

function fact(name: string, value: string): Html {
  return html`<div>
    <dt>${name}</dt>
    <dd>${value}</dd>
  </div>`;
}

function ofLimit(value: number, limit: number): string {
  return `${count(value)} of ${count(limit)}`;
}

function speed(perSecond: number): string {
  if (perSecond >= 1) return `${perSecond.toFixed(1)}/s`;
  return `${(perSecond * 60).toFixed(1)}/min`;
}

function ran({ status, nowMs }: RunOnPage): string {
  return formatDuration(Math.max(0, (status.state === 'running' ? nowMs : status.seenAt) - status.startedAt));
}

/** What a person should know about a run: why it does not go on. */
export function notes({ status, account, nowMs }: RunOnPage): Html[] {
  const { state } = status;
  const texts: string[] = [];
  if (status.ended?.reason !== undefined) texts.push(`Stopped: ${status.ended.reason}`);
  if (state === 'silent') {
    const ago = formatDuration(nowMs - status.seenAt);
    texts.push(`Nothing was heard of its process for ${ago}. The same command resumes it where it was.`);
  }
  if (state === 'running') {
    if (account.pauses.some(({ kind }) => kind === 'paused'))
      texts.push('The queue of its account is paused. It can be resumed on the board.');
    if (account.workers.length === 0) texts.push('No worker is there for its account: nothing is submitted.');
    for (const worker of account.workers.filter(({ state: at }) => at !== 'working')) {
      texts.push(
        `${worker.host}, process ${worker.pid}, for ${formatDuration(nowMs - worker.since)}: ${worker.reason}`,
      );
    }
  }
  return texts.map((text) => html`<p class="note">${text}</p>`);
}

/** Where a run takes place. */
export function whereLine({ status, account }: RunOnPage): Html {
  const workers = account.workers.length;
  return html`<p class="where">
    ${status.manifest === '-' ? 'stdin' : status.manifest} → ${status.output}<br />
    account ${status.account}, on ${status.host} (process
    ${status.pid})${status.schedule !== undefined && html`, schedule ${status.schedule}`}${
      status.state === 'running' && html`, ${count(workers)} ${workers === 1 ? 'worker' : 'workers'}`
    }
  </p>`;
}

/** What people call a run. */
export function runTitle(status: RunStatus): string {
  return fileNameOf(status.output);
}
