import { z } from 'zod';
import { type AccountView, type RunView, adviceFor, readServiceStatus } from '../service/views.js';
import { answerCell, describeJobId, imageOfJobId } from '../shared/jobs.js';
import { formatDuration } from '../shared/limits.js';
import type { RunStatus } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { count, fileNameOf, httpUrl, imageDataSchema, settledRows, shortUrl, speedText } from './texts.js';
import { BOARD_PATH, type Html, type Page, html, layout } from './html.js';

const IMAGES = 12;
const FAILURES = 5;
const LOOKED_AT_ONCE = 50;
/** Other runs of the account have their images in the same queue: so many are looked through at most. */
const LOOKED_THROUGH = 300;

/** All runs of the last day, the newest first. */
export async function runsPage(connection: QueueConnection): Promise<Page> {
  const views = await readRunsOnPage(connection);
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
  const view = (await readRunsOnPage(connection)).find(({ status }) => status.run === id);
  if (view === undefined) {
    const main = html`<p class="empty">There is no such page, or no such run in the last day.</p>`;
    return layout('Not found', main, 404);
  }
  const { status } = view;
  const [described, failed] = await Promise.all([
    newestImages(connection, 'completed', status, IMAGES),
    newestImages(connection, 'failed', status, FAILURES),
  ]);
  const main = html`<section class="card">
      <div class="title">
        <h1>${runTitle(status)}</h1>
        ${stateBadge(view)}
      </div>
      ${whereLine(view)} ${progressBar(view)} ${facts(view)} ${notes(view)}
    </section>
    ${failed.length > 0 && failedPart(failed)}
    <section>
      <h2>Newest prompts</h2>
      ${
        described.length > 0
          ? html`<ul class="images">
              ${described.map(imageItem)}
            </ul>`
          : html`<p class="empty">None in the queue yet.</p>`
      }
    </section>`;
  return layout(runTitle(status), main);
}

/** A run as the pages show it, and what is true of its account for all of its runs together. */
interface RunOnPage {
  readonly status: RunView;
  readonly account: AccountView;
  readonly nowMs: number;
  /** What helps it, where nobody has it at the moment. */
  readonly advice: string | undefined;
}

async function readRunsOnPage(connection: QueueConnection): Promise<RunOnPage[]> {
  const service = await readServiceStatus(connection);
  return service.runs.flatMap((status) => {
    const account = service.accounts.find(({ queueName }) => queueName === status.queueName);
    const advice = adviceFor(status, service);
    return account === undefined ? [] : [{ status, account, nowMs: service.at, advice }];
  });
}

function imageItem({ key, url, row, jobUrl, prompts, imageUrl }: NewestImage): Html {
  return html`<li class="image" data-key="${key}">
    ${thumbnail(url, imageUrl)}
    <div class="told">
      <div class="name"><span>${shortUrl(url)}</span><a class="soft" href="${jobUrl}">row ${row}</a></div>
      <ol class="prompts">
        ${prompts.map((prompt) => html`<li>${answerCell(prompt)}</li>`)}
      </ol>
    </div>
  </li>`;
}

/** The source image itself, which the browser fetches, or a small one of a local image, which it gets from here; its host learns nothing of this page. */
function thumbnail(url: string, imageUrl: string): Html {
  const href = httpUrl(url);
  if (url.startsWith('file:'))
    return html`<span class="thumb"><img src="${imageUrl}" alt="" loading="lazy" decoding="async" /></span>`;
  if (href === undefined) return html`<span class="thumb"></span>`;
  return html`<a class="thumb" href="${href}" target="_blank" rel="noopener noreferrer"
    ><img src="${href}" alt="" loading="lazy" decoding="async" referrerpolicy="no-referrer"
  /></a>`;
}

function failedPart(failed: readonly NewestImage[]): Html {
  return html`<section>
    <h2>Newest failures</h2>
    <table>
      <tbody>
        ${failed.map(
          ({ key, url, row, jobUrl, reason }) =>
            html`<tr data-key="${key}">
              <td>${imageName(url)}</td>
              <td>${reason}</td>
              <td><a href="${jobUrl}">row ${row}</a></td>
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

type NewestImage = Awaited<ReturnType<typeof newestImages>>[number];

const describedSchema = z.object({ outcome: z.object({ prompts: z.array(z.json()) }) });

/** The images of a run that were described last, or failed last, the newest first. */
async function newestImages(
  connection: QueueConnection,
  state: 'completed' | 'failed',
  { run, queueName }: RunView,
  count: number,
) {
  const queue = connection.queue<unknown, unknown>(queueName);
  const boardUrl = `${BOARD_PATH}/queue/${encodeURIComponent(queueName)}`;
  const found = [];
  for (let start = 0; start < LOOKED_THROUGH && found.length < count; start += LOOKED_AT_ONCE) {
    const ids = await queue.getRanges([state], start, start + LOOKED_AT_ONCE - 1);
    const mine = ids.filter((id) => id.startsWith(describeJobId(run, ''))).slice(0, count - found.length);
    for (const job of await Promise.all(mine.map((id) => queue.getJob(id)))) {
      // Anybody may have added jobs to the queue.
      const image = imageDataSchema.safeParse(job?.data).data;
      const described = describedSchema.safeParse(job?.returnvalue).data?.outcome;
      const prompts = state === 'failed' ? [] : described?.prompts;
      if (job === undefined || image === undefined || prompts === undefined) continue;
      const { id = '', failedReason: reason, finishedOn = 0 } = job;
      const jobUrl = `${boardUrl}/${encodeURIComponent(id)}`;
      const imageUrl = `/runs/${run}/images/${encodeURIComponent(imageOfJobId(run, id) ?? '')}`;
      found.push({ ...image, key: `${id}.${finishedOn}`, jobUrl, imageUrl, prompts, reason });
    }
    if (ids.length < LOOKED_AT_ONCE) break;
  }
  return found;
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
  const { state, inputTokens = 0, outputTokens = 0 } = status;
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
    ${isRunning && fact('In flight', `${count(account.inFlight)} of ${count(account.maxInFlight)}`)}
    ${isRunning && fact('Waiting', count(account.waiting))}
    ${(isRunning || state === 'ended') && fact('Speed', speedText(status.perSecond))}
    ${inputTokens + outputTokens > 0 && fact('Tokens', `${count(inputTokens)} in, ${count(outputTokens)} out`)}
    ${status.cost !== undefined && fact('Cost', status.cost.toFixed(2))} ${fact('Rate', account.rate)}
    ${account.share < 1 && fact('The API lets through', account.learnedRate)}
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
