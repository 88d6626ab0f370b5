import { z } from 'zod';
import {
  type AccountView,
  type RunView,
  type ServiceStatus,
  adviceFor,
  readServiceStatus,
} from '../../service/views.js';
import { type DescribeJobData, type ResultJobData, describeJobId } from '../../shared/jobs.js';
import { formatDuration } from '../../shared/limits.js';
import type { RunStatus } from '../../shared/published.js';
import type { JobQueue, QueueConnection } from '../../shared/queue/connection.js';
import { fileNameOf, httpUrl, shortUrl } from '../texts.js';
import { BOARD_PATH, type Html, type Page, html, layout } from './html.js';

const IMAGES = 12;
const FAILURES = 5;
const LOOKED_AT_ONCE = 50;
/** Other runs of the account have their images in the same queue: so many are looked through at most. */
const LOOKED_THROUGH = 300;

/** All runs of the last day, the newest first. */
export async function runsPage(connection: QueueConnection): Promise<Page> {
  const views = runsOnPage(await readServiceStatus(connection));
  const running = views.filter(({ status }) => status.state === 'running').length;
  const title = running === 0 ? 'Runs' : `Runs (${running} going on)`;
  const cards = views.map(
    (view) =>
      html`<article class="card" data-key="${view.status.run}">
        <div class="title">
          <h2><a href="/runs/${encodeURIComponent(view.status.run)}">${runTitle(view.status)}</a></h2>
          ${stateBadge(view)}
        </div>
        ${progressBar(view)} ${facts(view)} ${notes(view)}
      </article>`,
  );
  const main =
    cards.length > 0
      ? html`${cards}`
      : html`<p class="empty">
          No run in the last day. <code>bulk-describe run &lt;manifest&gt;</code> on this queue is seen here.
        </p>`;
  return layout(title, main);
}

/** One run, with its newest images; or that there is none, or no such page. */
export async function runPage(connection: QueueConnection, id: string): Promise<Page> {
  const view = runsOnPage(await readServiceStatus(connection)).find(({ status }) => status.run === id);
  if (view === undefined) {
    const main = html`<p class="empty">There is no such page, or no such run in the last day.</p>`;
    return layout('Not found', main, 404);
  }
  const [described, failed] = await Promise.all([
    newestImages(connection, 'completed', view.status, IMAGES),
    newestImages(connection, 'failed', view.status, FAILURES),
  ]);
  const { status } = view;
  const jobUrl = (jobId: string) =>
    `${BOARD_PATH}/queue/${encodeURIComponent(status.queueName)}/${encodeURIComponent(jobId)}`;
  const main = html`<section class="card">
      <div class="title">
        <h1>${runTitle(status)}</h1>
        ${stateBadge(view)}
      </div>
      ${whereLine(view)} ${progressBar(view)} ${facts(view)} ${notes(view)}
    </section>
    ${failed.length > 0 && failedPart(failed, jobUrl)}
    <section>
      <h2>Newest prompts</h2>
      ${
        described.length > 0
          ? html`<ul class="images">
              ${described.map((image) => imageItem(image, jobUrl(image.jobId)))}
            </ul>`
          : html`<p class="empty">None in the queue yet.</p>`
      }
    </section>`;
  return layout(runTitle(status), main);
}

function runsOnPage(service: ServiceStatus): RunOnPage[] {
  const { at, runs, accounts } = service;
  const byQueue = new Map(accounts.map((account) => [account.queueName, account]));
  return runs.flatMap((status) => {
    const account = byQueue.get(status.queueName);
    return account === undefined ? [] : [{ status, account, nowMs: at, advice: adviceFor(status, service) }];
  });
}

function imageItem(image: NewestImage, jobUrl: string): Html {
  return html`<li class="image" data-key="${image.jobId}.${String(image.at)}">
    ${thumbnail(image.url)}
    <div class="told">
      <div class="name">
        <span>${shortUrl(image.url)}</span><a class="soft" href="${jobUrl}">row ${image.row}</a>
      </div>
      <ol class="prompts">
        ${image.prompts.map((prompt) => html`<li>${prompt}</li>`)}
      </ol>
    </div>
  </li>`;
}

/** The source image itself, which the browser fetches; its host learns nothing of this page. */
function thumbnail(url: string): Html {
  const href = httpUrl(url);
  if (href === undefined) return html`<span class="thumb"></span>`;
  return html`<a class="thumb" href="${href}" target="_blank" rel="noopener noreferrer"
    ><img src="${href}" alt="" loading="lazy" decoding="async" referrerpolicy="no-referrer"
  /></a>`;
}

function failedPart(failed: readonly NewestImage[], jobUrl: (jobId: string) => string): Html {
  return html`<section>
    <h2>Newest failures</h2>
    <table>
      <tbody>
        ${failed.map(
          ({ jobId, url, row, reason }) =>
            html`<tr data-key="${jobId}">
              <td>${imageName(url)}</td>
              <td>${reason}</td>
              <td><a href="${jobUrl(jobId)}">row ${row}</a></td>
            </tr>`,
        )}
      </tbody>
    </table>
  </section>`;
}

function imageName(url: string): Html {
  const href = httpUrl(url);
  if (href === undefined) return html`${shortUrl(url)}`;
  return html`<a href="${href}" target="_blank" rel="noopener noreferrer">${shortUrl(url)}</a>`;
}

/** An image of a run: with its prompts, or why it failed. */
interface NewestImage {
  readonly jobId: string;
  readonly url: string;
  readonly row: number;
  readonly prompts: readonly string[];
  readonly reason: string;
  /** Epoch milliseconds. */
  readonly at: number | undefined;
}

type ImageState = 'completed' | 'failed';
type Job = Awaited<ReturnType<JobQueue<DescribeJobData, ResultJobData>['getJobs']>>[number];

/** The images of a run that were described last, or failed last, the newest first. */
async function newestImages(
  connection: QueueConnection,
  state: ImageState,
  { run, queueName }: RunStatus,
  count: number,
): Promise<NewestImage[]> {
  const queue = connection.queue<DescribeJobData, ResultJobData>(queueName);
  const found: NewestImage[] = [];
  const isMine = (jobId: string) => jobId.startsWith(describeJobId(run, ''));
  for (let start = 0; start < LOOKED_THROUGH && found.length < count; start += LOOKED_AT_ONCE) {
    const ids = await queue.getRanges([state], start, start + LOOKED_AT_ONCE - 1);
    const mine = ids.filter(isMine).slice(0, count - found.length);
    const jobs = await Promise.all(mine.map((id) => queue.getJob(id)));
    found.push(...jobs.flatMap((job) => (job === undefined ? [] : readImage(job, state))));
    if (ids.length < LOOKED_AT_ONCE) break;
  }
  return found;
}

/** What is read of jobs that anybody may have added to the queue. */
const dataSchema = z.object({ run: z.string(), url: z.string(), row: z.number() });
const describedSchema = z.object({
  outcome: z.object({ status: z.literal('described'), prompts: z.array(z.string()) }),
});

function readImage(job: Job, state: ImageState): NewestImage[] {
  const { id = '', returnvalue, failedReason: reason, finishedOn: at } = job;
  const about = dataSchema.safeParse(job.data).data;
  const prompts = state === 'failed' ? [] : describedSchema.safeParse(returnvalue).data?.outcome.prompts;
  if (about === undefined || prompts === undefined) return [];
  return [{ jobId: id, url: about.url, row: about.row, prompts, reason, at }];
}

/** A run as the pages show it, and what is true of its account for all of its runs together. */
interface RunOnPage {
  readonly status: RunView;
  readonly account: AccountView;
  readonly nowMs: number;
  /** What helps it, where nobody has it at the moment. */
  readonly advice: string | undefined;
}

/** Rows that are accounted for. */
function settledRows({ described, resumed, copied, failed }: RunStatus): number {
  return described + resumed + copied + failed;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** A run's state, as people say it. */
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
function facts(view: RunOnPage): Html {
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
      texts.push('The queue of its account is paused. It can be resumed on the board.');
    if (account.workers.length === 0) texts.push('No worker is there for its account: nothing is submitted.');
    for (const worker of account.workers.filter(({ state: at }) => at !== 'working')) {
      const time = worker.state === 'silent' ? 'silent' : `for ${formatDuration(nowMs - worker.since)}`;
      texts.push(`${worker.host}, process ${worker.pid}, ${time}: ${worker.reason}`);
    }
  }
  return texts.map((text) => html`<p class="note">${text}</p>`);
}

/** Where a run takes place. */
function whereLine({ status, account }: RunOnPage): Html {
  const workers = account.workers.filter(({ state }) => state !== 'silent').length;
  return html`<p class="where">
    ${status.manifest === '-' ? 'stdin' : status.manifest} → ${status.output}<br />
    account ${status.account}, on ${status.host} (process
    ${status.pid})${status.schedule !== undefined && html`, schedule ${status.schedule}`}${
      status.state === 'running' && html`, ${count(workers)} ${workers === 1 ? 'worker' : 'workers'}`
    }
  </p>`;
}

/** What people call a run. */
function runTitle(status: RunStatus): string {
  return fileNameOf(status.output);
}
