import type { QueueConnection } from '../../shared/queue/connection.js';
import { RUNS } from '../../shared/published.js';
import * as registry from '../../shared/queue/registry.js';
import { html } from './html.js';
import { type Page, layout } from './layout.js';
import { newestDescribed, newestFailed } from './newest-images.js';
import { runPage } from './run-page.js';
import { viewRuns } from './run-view.js';
import { runsPage } from './runs-page.js';

const IMAGES = 12;
const FAILURES = 5;

/** Makes the pages of a queue: `/` and `/runs` list the runs, `/runs/<id>` shows one. */
export function createPages(connection: QueueConnection, boardPath: string): (path: string) => Promise<Page> {
  return async (path) => {
    const nowMs = Date.now();
    if (path === '/' || path === '/runs') {
      return runsPage(
        await viewRuns(connection, await registry.list(connection.store, RUNS), nowMs),
        boardPath,
      );
    }
    const id = /^\/runs\/([\w.-]+)$/.exec(path)?.[1];
    const status = (await registry.list(connection.store, RUNS)).find(({ run }) => run === id);
    if (status === undefined) return notFound(boardPath);
    const [[view], described, failed] = await Promise.all([
      viewRuns(connection, [status], nowMs),
      newestDescribed(connection, status, IMAGES),
      newestFailed(connection, status, FAILURES),
    ]);
    return view === undefined ? notFound(boardPath) : runPage({ view, described, failed, boardPath });
  };
}

function notFound(boardPath: string): Page {
  const main = html`<p class="empty">There is no such page, or no such run in the last day.</p>`;
  return layout({ title: 'Not found · bulk-describe', main, boardPath, status: 404 });
}
