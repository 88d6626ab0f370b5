import { html } from './html.js';
import { type Page, layout } from './layout.js';
import { type RunOnPage, facts, notes, progressBar, runTitle, stateBadge } from './run-parts.js';

/** All runs of the last day, the newest first. */
export function runsPage(views: readonly RunOnPage[], boardPath: string): Page {
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
  return layout({ title: `${title} · bulk-describe`, main, boardPath });
}
