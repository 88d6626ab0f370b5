import type { ListedSchedule } from '../service/schedules.js';
import type { CheckedStatus } from '../service/troubles.js';
import type { AccountView, ServiceStatus, WorkerView } from '../service/views.js';
import { formatDuration } from '../shared/limits.js';
import { count } from '../shared/plural.js';
import { type Html, actionButton, html } from './html.js';

/** What keeps work from being done at the queue. */
export function troublesPart({ troubles, at }: CheckedStatus): Html[] {
  return troubles.map(({ kind, about, text, reason, since }) => {
    const begun = since !== undefined && html`, for ${formatDuration(at - since)}`;
    return html`<p class="note" data-key="${kind} ${about}">
      ${about}: ${text}${begun}${reason !== '' && ` (${reason})`}
    </p>`;
  });
}

/** When each schedule runs next, and how it ran last; nothing without schedules. */
export function schedulesPart(schedules: readonly ListedSchedule[], nowMs: number): Html | undefined {
  if (schedules.length === 0) return undefined;
  const rows = schedules.map(({ name, cron, timeZone, request, nextAt, record }) => {
    const { lastAt, lastText = '' } = record;
    const due = nextAt === undefined ? 'not planned' : when(nextAt, nowMs);
    const next = nextAt !== undefined && nextAt < nowMs ? 'as soon as a server is there' : due;
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
export function accountsPart(
  { accounts, homes: servers, at }: ServiceStatus,
  readOnly: boolean,
): Html | undefined {
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
