import { z } from 'zod';
import { type ServiceStatus, readServiceStatus } from '../../service/views.js';
import { type DescribeJobData, type ResultJobData, describeJobId } from '../../shared/jobs.js';
import type { RunStatus } from '../../shared/published.js';
import type { JobQueue, QueueConnection } from '../../shared/queue/connection.js';
import { httpUrl, shortUrl } from '../texts.js';
import { BOARD_PATH, type Html, type Page, html, layout } from './html.js';
import { type RunOnPage, facts, notes, progressBar, runTitle, stateBadge, whereLine } from './run-parts.js';

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

function runsOnPage({ at, runs, accounts }: ServiceStatus): RunOnPage[] {
  const byQueue = new Map(accounts.map((account) => [account.queueName, account]));
  return runs.flatMap((status) => {
    const account = byQueue.get(status.queueName);
    return account === undefined ? [] : [{ status, account, nowMs: at }];
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
