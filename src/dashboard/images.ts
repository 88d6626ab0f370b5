import type { Job } from 'bullmq';
import pLimit from 'p-limit';
import { z } from 'zod';
import {
  type ErrorCode,
  ERROR_CODES,
  answerCell,
  describeJobId,
  describeJobSchema,
  imageOfJobId,
} from '../shared/jobs.js';
import { BadImageError, type PreparedImage, loadLocal, prepareImage } from '../shared/prepare-image.js';
import { RUNS, type RunStatus } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { BOARD_PATH, type Html, actionButton, html } from './html.js';
import { CODE_HELP, httpUrl, shortUrl } from './texts.js';

/** Whose images are shown, and where they are. */
type ShownRun = Pick<RunStatus, 'run' | 'queueName'>;

const IMAGES = 12;
const FAILURES = 10;
const LOOKED_AT_ONCE = 50;
/** Other runs of the account have their images in the same queue: so many are looked through at most. */
const LOOKED_THROUGH = 300;

/** What is shown of a describe job; its data may be anybody's. */
export const imageDataSchema = describeJobSchema.pick({ url: true, row: true, title: true });
const callsSchema = describeJobSchema.pick({
  submits: true,
  polls: true,
  maybePaid: true,
  lastMessageId: true,
});
/** The prompts before all else: they are what people look for in a job's first tab on the board. */
export const describedSchema = z.object({
  outcome: z.object({ prompts: z.array(z.json()), messageId: z.string(), describedAt: z.string() }),
});

/** The images of a run that were described last, the newest first. */
export async function newestPart(connection: QueueConnection, run: ShownRun): Promise<Html> {
  const items: Html[] = [];
  for await (const job of jobsOf(connection, run, 'completed')) {
    const item = imageItem(run, job);
    if (item !== undefined) items.push(item);
    if (items.length === IMAGES) break;
  }
  return html`<section>
    <h2>Newest prompts</h2>
    ${
      items.length === 0
        ? html`<p class="empty">None in the queue yet.</p>`
        : html`<ul class="images">
            ${items}
          </ul>`
    }
  </section>`;
}

function imageItem(run: ShownRun, job: Job<unknown, unknown>): Html | undefined {
  const image = shownImage(run, job);
  const prompts = describedSchema.safeParse(job.returnvalue).data?.outcome.prompts;
  if (image === undefined || prompts === undefined) return undefined;
  const { key, url, row, title, jobUrl } = image;
  return html`<li class="image" data-key="${key}">
    ${thumbnail(image)}
    <div class="told">
      <div class="name">
        <span>${title ?? shortUrl(url)}</span><a class="soft" href="${jobUrl}">row ${row}</a>
      </div>
      ${title !== undefined && html`<div class="soft file">${shortUrl(url)}</div>`}
      <ol class="prompts">
        ${prompts.map((prompt) => html`<li>${answerCell(prompt)}</li>`)}
      </ol>
    </div>
  </li>`;
}

/** The source image itself, which the browser fetches, or a small one of a local image, which it gets from here; its host learns nothing of this page. */
function thumbnail({ url, title, imageUrl }: ShownImage): Html {
  const href = httpUrl(url);
  if (url.startsWith('file:'))
    return html`<span class="thumb"><img src="${imageUrl}" alt="" loading="lazy" decoding="async" /></span>`;
  if (href === undefined) return html`<span class="thumb"></span>`;
  return html`<a
    class="thumb"
    href="${href}"
    target="_blank"
    rel="noopener noreferrer"
    aria-label="${title ?? shortUrl(url)}"
    ><img src="${href}" alt="" loading="lazy" decoding="async" referrerpolicy="no-referrer"
  /></a>`;
}

/**
 * The images of a run that failed last, each with its story; nothing where none has.
 * @param code shows those that failed with it alone
 */
export async function failedPart(
  connection: QueueConnection,
  run: ShownRun,
  { code, readOnly }: { readonly code: string | undefined; readonly readOnly: boolean },
): Promise<Html | undefined> {
  const rows: Html[] = [];
  for await (const job of jobsOf(connection, run, 'failed')) {
    const image = shownImage(run, job);
    if (image === undefined || (code !== undefined && codeOf(job) !== code)) continue;
    const { logs } = await connection.queue(run.queueName).getJobLogs(job.id ?? '');
    rows.push(failedRow(image, job, logs, readOnly));
    if (rows.length === FAILURES) break;
  }
  if (rows.length === 0 && code === undefined) return undefined;
  return html`<section>
    <h2>Newest failures${code !== undefined && html` with <code>${code}</code>`}</h2>
    ${
      code !== undefined &&
      html`<p class="soft">
        <a href="/runs/${run.run}">All failures</a
        >${rows.length === 0 && ': none of the newest has this code; the failures file has all'}
      </p>`
    }
    ${
      rows.length > 0 &&
      html`<table class="failures">
        <tbody>
          ${rows}
        </tbody>
      </table>`
    }
  </section>`;
}

function failedRow(
  { key, url, row, title, jobUrl }: ShownImage,
  job: Job<unknown, unknown>,
  logs: readonly string[],
  readOnly: boolean,
): Html {
  const href = httpUrl(url);
  const calls = callsSchema.safeParse(job.data).data;
  const code = codeOf(job);
  const help = code && CODE_HELP[code];
  const paid = calls !== undefined && calls.maybePaid > 0 && `, ${calls.maybePaid} perhaps paid for in vain`;
  return html`<tr data-key="${key}">
    <td>
      ${href === undefined ? shortUrl(url) : html`<a href="${href}" target="_blank" rel="noopener noreferrer">${shortUrl(url)}</a>`}
      ${title !== undefined && html`<div class="soft">${title}</div>`}
    </td>
    <td>
      <details>
        <summary>${job.failedReason}</summary>
        ${help && html`<p>${help}</p>`}
        ${calls && html`<p>${calls.submits} submitted, ${calls.polls} polled${paid}; last message ${calls.lastMessageId ?? 'none'}.</p>`}
        ${logs.length > 0 && html`<pre tabindex="0">${logs.join('\n')}</pre>`}
      </details>
    </td>
    <td>
      <a href="${jobUrl}">row ${row}</a>${!readOnly && actionButton('retry-image', job.id ?? '', 'Retry')}
    </td>
  </tr>`;
}

function codeOf({ failedReason }: Job<unknown, unknown>): ErrorCode | undefined {
  return ERROR_CODES.find((code) => failedReason.startsWith(`${code}:`));
}

type ShownImage = NonNullable<ReturnType<typeof shownImage>>;

/** What is shown of any job of a run; nothing of one that somebody else has added to its queue. */
function shownImage({ run, queueName }: ShownRun, { id = '', data, finishedOn = 0 }: Job<unknown, unknown>) {
  const image = imageDataSchema.safeParse(data).data;
  if (image === undefined) return undefined;
  const jobUrl = `${BOARD_PATH}/queue/${encodeURIComponent(queueName)}/${encodeURIComponent(id)}`;
  const imageUrl = `/runs/${run}/images/${encodeURIComponent(imageOfJobId(run, id) ?? '')}`;
  return { ...image, key: `${id}.${finishedOn}`, jobUrl, imageUrl };
}

/** The jobs of a run among the newest ones of its queue, the newest first. */
export async function* jobsOf(
  connection: QueueConnection,
  { run, queueName }: ShownRun,
  state: 'completed' | 'failed',
  most = LOOKED_THROUGH,
): AsyncGenerator<Job<unknown, unknown>> {
  const queue = connection.queue<unknown, unknown>(queueName);
  for (let start = 0; start < most; start += LOOKED_AT_ONCE) {
    const ids = await queue.getRanges([state], start, start + LOOKED_AT_ONCE - 1);
    const mine = ids.filter((id) => id.startsWith(describeJobId(run, '')));
    for (const job of await Promise.all(mine.map((id) => queue.getJob(id)))) if (job !== undefined) yield job;
    if (ids.length < LOOKED_AT_ONCE) break;
  }
}

const SIDE = 320;
const DEADLINE_MS = 20_000;
/** Who looks at a page waits for as many pictures as are on it: the run's own come first. */
const turn = pLimit(2);

/**
 * A small picture of a run's image on this machine, for its page; undefined where there is none to be shown. Only what a job
 * of the run names is read, and only within the folders of images.
 * @param roots their real paths
 */
export async function localThumbnail(
  connection: QueueConnection,
  { run, image }: { readonly run: string; readonly image: string },
  roots: readonly string[],
): Promise<PreparedImage | undefined> {
  if (roots.length === 0) return undefined;
  const status = await RUNS.find(connection.store, run);
  if (status === undefined) return undefined;
  const job = await connection.queue<unknown, unknown>(status.queueName).getJob(describeJobId(run, image));
  const url = imageDataSchema.safeParse(job?.data).data?.url ?? '';
  return url.startsWith('file:') ? await smallPicture(url, roots) : undefined;
}

/** A small picture of a `file:` URL within the roots, or a `data:` URI; undefined where it cannot be had. */
export async function smallPicture(
  url: string,
  roots: readonly string[],
): Promise<PreparedImage | undefined> {
  try {
    const load = () => loadLocal(url, { roots });
    return await turn(() => prepareImage(load, { side: SIDE }, AbortSignal.timeout(DEADLINE_MS)));
  } catch (error) {
    if (error instanceof BadImageError) return undefined;
    throw error;
  }
}
