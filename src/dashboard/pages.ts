import type { ListedSchedule } from '../service/schedules.js';
import { type CheckedStatus, readCheckedStatus } from '../service/troubles.js';
import {
  type AccountView,
  type RunView,
  type ServiceStatus,
  type WorkerView,
  adviceFor,
  readServiceStatus,
} from '../service/views.js';
import { formatDuration } from '../shared/limits.js';
import { RUNS_QUEUE } from '../shared/jobs.js';
import { count } from '../shared/plural.js';
import { HISTOGRAM_BOUNDS, readMetrics } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { costChart, failuresChart, latencyChart, rateChart } from './charts.js';
import { type Html, type Page, actionButton, breakable, fact, html, layout } from './html.js';
import { failedPart, newestPart } from './images.js';
import { fileNameOf, settledRows, speedText } from './texts.js';

export interface View {
  readonly readOnly: boolean;
  /** What the button that was pressed last has done. */
  readonly said?: string | undefined;
  /** Of a run's failures only those with this code. */
  readonly code?: string | undefined;
}

/** What is wrong; all runs of the last day, the newest first; the accounts with their workers, and the schedules. */
export async function runsPage(connection: QueueConnection, { readOnly, said }: View): Promise<Page> {
  const service = await readCheckedStatus(connection);
  const views = runsOnPage(service);
  const running = views.filter(({ status }) => status.state === 'running').length;
  const title = running === 0 ? 'Runs' : `Runs (${running} going on)`;
  const cards = views.map(
    (view) =>
      html`<article class="card" data-key="${view.status.run}">
        <div class="title">
          <h2>
            <a href="/runs/${encodeURIComponent(view.status.run)}"
              >${breakable(fileNameOf(view.status.output))}</a
            >
          </h2>
          ${stateBadge(view)}
          <a class="soft" href="/runs/${encodeURIComponent(view.status.run)}/results">results</a>
        </div>
        ${progressBar(view)} ${facts(view)} ${notes(view)}
      </article>`,
  );
  const none = html`<p class="empty">
    No run in the last day. <code>bulk-describe run &lt;manifest&gt;</code> on this queue is seen here.
  </p>`;
  const main = html`${saidPart(said)}
    <h1 class="unseen">Runs</h1>
    ${troublesPart(service, readOnly)} ${cards.length > 0 ? cards : none}
    ${schedulesPart(service.schedules, service.at)} ${accountsPart(service, readOnly)}`;
  return layout(title, main);
}

/** One run, with its charts and its newest images; or that there is none, or no such page. */
export async function runPage(connection: QueueConnection, id: string, look: View): Promise<Page> {
  const view = runsOnPage(await readServiceStatus(connection)).find(({ status }) => status.run === id);
  if (view === undefined) {
    const main = html`${saidPart(look.said)}
      <p class="empty">There is no such page, or no such run in the last day.</p>`;
    return layout('Not found', main, 404);
  }
  const { status } = view;
  const [charts, failed, newest] = await Promise.all([
    chartsPart(connection, status, look.code),
    failedPart(connection, status, { code: look.code, readOnly: look.readOnly }),
    newestPart(connection, status),
  ]);
  const main = html`${saidPart(look.said)}
    <section class="card">
      <div class="title">
        <h1>${breakable(fileNameOf(status.output))}</h1>
        ${stateBadge(view)}
      </div>
      ${whereLine(view)} ${progressBar(view)} ${facts(view)} ${notes(view)} ${!look.readOnly && buttons(view)}
    </section>
    ${charts} ${failed} ${newest}`;
  return layout(fileNameOf(status.output), main);
}

function saidPart(said: string | undefined): Html | undefined {
  return said === undefined ? undefined : html`<p class="note said" role="status">${said}</p>`;
}

function buttons({ status, account }: RunOnPage): Html {
  const { run, state, failed, stopping } = status;
  const isOver = state === 'ended';
  const isPaused = account.pauses.some(({ kind }) => kind === 'paused');
  return html`<div class="actions">
    ${!isOver && status.cancelled !== true && stopping === undefined && actionButton('cancel-run', run, 'Cancel the run')}
    ${failed > 0 && state === 'running' && actionButton('retry-images', run, 'Retry failed images')}
    ${failed > 0 && isOver && actionButton('retry-run', run, 'Retry failed rows')}
    ${isPaused && actionButton('resume-account', status.queueName, 'Resume the account')}
  </div>`;
}

async function chartsPart(
  connection: QueueConnection,
  status: RunView,
  code: string | undefined,
): Promise<Html> {
  const { series, failedByCode = {} } = status;
  const counts = await readMetrics(connection.store, status.queueName);
  const latency = [...HISTOGRAM_BOUNDS.latency, Infinity].map((seconds) => {
    return { seconds, count: counts.get(`latency:le:${seconds === Infinity ? '+Inf' : seconds}`) ?? 0 };
  });
  const hrefOf = (one: string) => `/runs/${status.run}?code=${encodeURIComponent(one)}`;
  return html`<section>
    <h2>Over the run</h2>
    <div class="charts">
      ${series && rateChart(series, status.seenAt)} ${failuresChart(failedByCode, code, hrefOf)}
      ${series && costChart(series)} ${latencyChart(latency, 'How long images take, all runs of the account')}
    </div>
  </section>`;
}

/** A run as the pages show it, and what is true of its account for all of its runs together. */
interface RunOnPage {
  readonly status: RunView;
  readonly account: AccountView;
  readonly nowMs: number;
  /** What helps it, where nobody has it at the moment. */
  readonly advice: string | undefined;
}

function runsOnPage(service: ServiceStatus): RunOnPage[] {
  return service.runs.flatMap((status) => {
    const account = service.accounts.find(({ queueName }) => queueName === status.queueName);
    const advice = adviceFor(status, service);
    return account === undefined ? [] : [{ status, account, nowMs: service.at, advice }];
  });
}

function stateBadge({ status: { state, ended, cancelled } }: RunOnPage): Html {
  if (cancelled === true) return html`<span class="state troubled">cancelled</span>`;
  if (state === 'running') return html`<span class="state running">running</span>`;
  if (state === 'silent' || state === 'waiting') return html`<span class="state silent">${state}</span>`;
  if (ended?.exitCode === 0) return html`<span class="state ended">done</span>`;
  const word =
    ended?.exitCode === 130 ? 'interrupted' : ended?.exitCode === 2 ? 'done, some failed' : 'stopped';
  return html`<span class="state troubled">${word}</span>`;
}

/** How far a run is: described, copied and failed rows of all there are. */
function progressBar({ status }: RunOnPage): Html {
  const total = Math.max(1, status.totalRows ?? status.rows);
  const parts = [
    { name: 'described', rows: status.described + status.resumed },
    { name: 'copied', rows: status.copied },
    { name: 'failed', rows: status.failed },
  ];
  const percent = (rows: number) => `${((100 * Math.min(rows, total)) / total).toFixed(2)}%`;
  let before = 0;
  const bars = parts.map(({ name, rows }) => {
    const from = before;
    before += rows;
    return html`<rect class="${name}" x="${percent(from)}" width="${percent(rows)}" height="100%" />`;
  });
  const label = `${count(settledRows(status))} of ${count(total)} rows`;
  return html`<svg class="bar" role="img" aria-label="${label}">
    <title>${label}</title>
    ${bars}
  </svg>`;
}

function facts({ status, account, nowMs }: RunOnPage): Html {
  const { state, inputTokens = 0, outputTokens = 0 } = status;
  const total = status.totalRows === undefined ? ' so far' : ` of ${count(status.totalRows)}`;
  const isRunning = state === 'running';
  const lastMs = isRunning ? nowMs : status.seenAt;
  return html`<dl class="facts">
    ${fact('Rows', count(settledRows(status)) + total)} ${fact('Described', count(status.described))}
    ${status.resumed > 0 && fact('Resumed', count(status.resumed))}
    ${status.copied > 0 && fact('Copied', count(status.copied))}
    <div class="failed">
      <dt>Failed</dt>
      <dd class="${status.failed > 0 ? 'some' : ''}">${count(status.failed)}</dd>
    </div>
    ${(status.ended?.remaining ?? 0) > 0 && fact('Left for later', count(status.ended?.remaining ?? 0))}
    ${isRunning && fact('In flight', `${count(account.inFlight)} of ${count(account.maxInFlight)}`)}
    ${isRunning && fact('Waiting', count(account.waiting))}
    ${(isRunning || state === 'ended') && fact('Speed', speedText(status.perSecond))}
    ${inputTokens + outputTokens > 0 && fact('Tokens', `${count(inputTokens)} in, ${count(outputTokens)} out`)}
    ${status.cost !== undefined && fact('Cost', status.cost.toFixed(2))} ${fact('Rate', account.rate)}
    ${account.share < 1 && fact('The API lets through', account.learnedRate)}
    ${isRunning && fact('Left', status.etaMs === undefined ? '…' : formatDuration(status.etaMs))}
    ${fact(isRunning ? 'Since' : 'Ran', formatDuration(Math.max(0, lastMs - status.startedAt)))}
  </dl>`;
}

/** What a person should know about a run: why it does not go on. */
function notes({ status, account, nowMs, advice }: RunOnPage): Html[] {
  const { state } = status;
  const texts: string[] = [];
  const reason = state === 'ended' ? status.ended?.reason : status.stopping;
  if (reason !== undefined) texts.push(`Stopped: ${reason}`);
  if (status.cancelled === true && state !== 'ended') texts.push('What is in flight is finished and kept.');
  const ago = formatDuration(Math.max(0, nowMs - status.seenAt));
  if (state === 'silent') texts.push(`Nothing was heard of its process for ${ago}; ${advice ?? ''}.`);
  if (state === 'waiting') texts.push(`It waits for a server; ${advice ?? ''}.`);
  if (state === 'running') {
    if (account.pauses.some(({ kind }) => kind === 'paused'))
      texts.push('The queue of its account is paused.');
    if (account.workers.length === 0) texts.push('No worker is there for its account: nothing is submitted.');
    for (const worker of account.workers.filter(({ state: at }) => at !== 'working')) {
      const time = worker.state === 'silent' ? 'silent' : `for ${formatDuration(nowMs - worker.since)}`;
      texts.push(`${worker.host}, process ${worker.pid}, ${time}: ${worker.reason}`);
    }
  }
  return texts.map((text) => html`<p class="note">${text}</p>`);
}

function whereLine({ status, account }: RunOnPage): Html {
  const workers = account.workers.filter(({ state }) => state !== 'silent').length;
  return html`<p class="where">
    <a href="/runs/${encodeURIComponent(status.run)}/results">All results</a><br />
    ${status.manifest === '-' ? 'stdin' : status.manifest} → ${status.output}<br />
    account ${status.account}, on ${status.host} (process
    ${status.pid})${status.schedule !== undefined && html`, schedule ${status.schedule}`}${
      status.state === 'running' && html`, ${count(workers)} ${workers === 1 ? 'worker' : 'workers'}`
    }
  </p>`;
}

/** What keeps work from being done at the queue. */
function troublesPart({ troubles, at }: CheckedStatus, readOnly: boolean): Html[] {
  return troubles.map(({ kind, about, text, reason, since }) => {
    const begun = since !== undefined && html`, for ${formatDuration(at - since)}`;
    const mayResume = kind === 'paused' && about === RUNS_QUEUE && !readOnly;
    return html`<p class="note" data-key="${kind} ${about}">
        ${about}: ${text}${begun}${reason !== '' && ` (${reason})`}
      </p>
      ${mayResume && html`<div class="actions">${actionButton('resume-account', about, 'Resume')}</div>`}`;
  });
}

/** When each schedule runs next, and how it ran last; nothing without schedules. */
function schedulesPart(schedules: readonly ListedSchedule[], nowMs: number): Html | undefined {
  if (schedules.length === 0) return undefined;
  const rows = schedules.map(({ name, cron, timeZone, request, nextAt, record }) => {
    const { lastAt, lastText = '' } = record;
    const due = nextAt === undefined ? 'not planned' : when(nextAt, nowMs);
    const next = nextAt !== undefined && nextAt < nowMs ? 'as soon as a server takes it up' : due;
    return html`<tr data-key="${name}">
      <th scope="row">${name}</th>
      <td><code>${cron}</code> ${timeZone}</td>
      <td>${request.manifest}${request.output !== undefined && html` → ${request.output}`}</td>
      <td>next ${next}</td>
      <td>${lastAt === undefined ? 'has not run yet' : html`last ${when(lastAt, nowMs)}: ${lastText}`}</td>
    </tr>`;
  });
  return html`<section>
    <h2>Schedules</h2>
    <table class="stacked">
      <tbody>
        ${rows}
      </tbody>
    </table>
  </section>`;
}

/** A moment, without a time zone. */
function when(ms: number, nowMs: number): Html {
  const apart = formatDuration(Math.abs(ms - nowMs));
  const text = ms > nowMs ? `in ${apart}` : `${apart} ago`;
  return html`<time datetime="${new Date(ms).toISOString()}">${text}</time>`;
}

/** The accounts with their workers, and the servers. */
function accountsPart({ accounts, homes: servers, at }: ServiceStatus, readOnly: boolean): Html | undefined {
  if (accounts.length + servers.length === 0) return undefined;
  return html`<section>
    <h2>Accounts and workers</h2>
    ${accounts.map((account) => accountCard(account, at, readOnly))}
    ${
      servers.length > 0 &&
      html`<article class="card">
        <h3>Servers</h3>
        <ul class="plain">
          ${servers.map(
            ({ host, pid, root, since, runs }) =>
              html`<li>
                ${host}, process ${pid}: ${count(runs.length)} going on, files below ${root}, for
                ${formatDuration(at - since)}
              </li>`,
          )}
        </ul>
      </article>`
    }
  </section>`;
}

function accountCard(account: AccountView, nowMs: number, readOnly: boolean): Html {
  const { queueName, workers, inFlight, maxInFlight, waiting, delayed, rate, share, learnedRate } = account;
  const isPaused = account.pauses.some(({ kind }) => kind === 'paused');
  return html`<article class="card" data-key="${queueName}">
    <h3>${account.account}</h3>
    <p class="where">
      ${count(inFlight)} of ${count(maxInFlight)} in flight, ${count(waiting)} waiting, at most
      ${rate}${share < 1 && html`, the API lets ${learnedRate} through`}${isPaused && ', paused'}
    </p>
    ${
      workers.length === 0
        ? html`<p class="where">no worker</p>`
        : html`<ul class="plain">
            ${workers.map((worker) => html`<li>${workerText(worker, nowMs)}</li>`)}
          </ul>`
    }
    ${
      !readOnly &&
      html`<div class="actions">
        ${isPaused ? actionButton('resume-account', queueName, 'Resume') : actionButton('pause-account', queueName, 'Pause')}
        ${delayed > 0 && actionButton('hurry-account', queueName, 'Try waiting images now')}
      </div>`
    }
  </article>`;
}

function workerText({ host, pid, state, since, reason, trouble }: WorkerView, nowMs: number): Html {
  const why = reason === '' ? (trouble ?? '') : reason;
  return html`${host}, process ${pid}: ${state} for
  ${formatDuration(nowMs - since)}${why !== '' && `: ${why}`}`;
}
