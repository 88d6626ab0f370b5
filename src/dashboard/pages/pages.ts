import type { QueueConnection } from '../../shared/queue/connection.js';
import { type ServiceStatus, readServiceStatus } from '../../service/views.js';
import { html } from './html.js';
import { type Page, layout } from './layout.js';
import { newestDescribed, newestFailed } from './newest-images.js';
import { runPage } from './run-page.js';
import type { RunOnPage } from './run-parts.js';
import { runsPage } from './runs-page.js';

const IMAGES = 12;
const FAILURES = 5;

/** Makes the pages of a queue: `/` and `/runs` list the runs, `/runs/<id>` shows one. */
export function createPages(connection: QueueConnection, boardPath: string): (path: string) => Promise<Page> {
  return async (path) => {
    const runs = runsOnPage(await readServiceStatus(connection));
    if (path === '/' || path === '/runs') return runsPage(runs, boardPath);
    const id = /^\/runs\/([\w.-]+)$/.exec(path)?.[1];
    const view = runs.find(({ status }) => status.run === id);
    if (view === undefined) return notFound(boardPath);
    const [described, failed] = await Promise.all([
      newestDescribed(connection, view.status, IMAGES),
      newestFailed(connection, view.status, FAILURES),
    ]);
    return runPage({ view, described, failed, boardPath });
  };
}

function runsOnPage({ at, runs, accounts }: ServiceStatus): RunOnPage[] {
  const byQueue = new Map(accounts.map((account) => [account.queueName, account]));
  return runs.flatMap((status) => {
    const account = byQueue.get(status.queueName);
    return account === undefined ? [] : [{ status, account, nowMs: at }];
  });
}

function notFound(boardPath: string): Page {
  const main = html`<p class="empty">There is no such page, or no such run in the last day.</p>`;
  return layout({ title: 'Not found · bulk-describe', main, boardPath, status: 404 });
}
