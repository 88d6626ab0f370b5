import { type ServiceStatus, readServiceStatus } from '../../service/views.js';
import type { QueueConnection } from '../../shared/queue/connection.js';
import { httpUrl, shortUrl } from '../texts.js';
import { type Html, type Page, html, layout } from './html.js';
import { type DescribedImage, type FailedImage, newestDescribed, newestFailed } from './newest-images.js';
import { type RunOnPage, facts, notes, progressBar, runTitle, stateBadge, whereLine } from './run-parts.js';

const IMAGES = 12;
const FAILURES = 5;

/** The pages of a queue. */
export class Pages {
  readonly notFound: Page;

  constructor(
    private readonly connection: QueueConnection,
    private readonly boardPath: string,
  ) {
    const main = html`<p class="empty">There is no such page, or no such run in the last day.</p>`;
    this.notFound = layout('Not found', main, boardPath, 404);
  }

  /** All runs of the last day, the newest first. */
  async runs(): Promise<Page> {
    const views = runsOnPage(await readServiceStatus(this.connection));
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
            No run in the last day. <code>bulk-describe run &lt;manifest&gt;</code> on this queue is seen
            here.
          </p>`;
    return layout(title, main, this.boardPath);
  }

  /** One run, with its newest images. */
  async run(id: string): Promise<Page> {
    const view = runsOnPage(await readServiceStatus(this.connection)).find(({ status }) => status.run === id);
    if (view === undefined) return this.notFound;
    const [described, failed] = await Promise.all([
      newestDescribed(this.connection, view.status, IMAGES),
      newestFailed(this.connection, view.status, FAILURES),
    ]);
    const { status } = view;
    const jobUrl = (jobId: string) =>
      `${this.boardPath}/queue/${encodeURIComponent(status.queueName)}/${encodeURIComponent(jobId)}`;
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
    return layout(runTitle(status), main, this.boardPath);
  }
}

function runsOnPage({ at, runs, accounts }: ServiceStatus): RunOnPage[] {
  const byQueue = new Map(accounts.map((account) => [account.queueName, account]));
  return runs.flatMap((status) => {
    const account = byQueue.get(status.queueName);
    return account === undefined ? [] : [{ status, account, nowMs: at }];
  });
}

function imageItem(image: DescribedImage, jobUrl: string): Html {
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

function failedPart(failed: readonly FailedImage[], jobUrl: (jobId: string) => string): Html {
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
