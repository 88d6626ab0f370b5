import { httpUrl, shortUrl } from '../image-links.js';
import { type Html, html } from './html.js';
import { type Page, layout } from './layout.js';
import type { DescribedImage, FailedImage } from './newest-images.js';
import { type RunOnPage, facts, notes, progressBar, runTitle, stateBadge, whereLine } from './run-parts.js';

export interface RunPageParts {
  readonly view: RunOnPage;
  readonly described: readonly DescribedImage[];
  readonly failed: readonly FailedImage[];
  readonly boardPath: string;
}

/** One run, with its newest images. */
export function runPage({ view, described, failed, boardPath }: RunPageParts): Page {
  const { status } = view;
  const jobUrl = (jobId: string) =>
    `${boardPath}/queue/${encodeURIComponent(status.queueName)}/${encodeURIComponent(jobId)}`;
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
  return layout({ title: `${runTitle(status)} · bulk-describe`, main, boardPath });
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
