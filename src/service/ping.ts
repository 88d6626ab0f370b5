import { type Dispatcher, request } from 'undici';
import { createAgent, isMomentary } from '../describe-api/http.js';
import { UsageError, messageOf } from '../shared/errors.js';
import { sleep, startTimer } from '../shared/waiting.js';

/** Three tries of three seconds with pauses between them are ten seconds. */
const DEADLINE_MS = 10_000;
const TRIES = 3;
const TRY_MS = 3000;
const PAUSE_MS = 500;
const LONGEST_TEXT = 2000;
const START = '/start';

/** Stands for the name of a schedule in a server's URL. */
const SCHEDULE = '{schedule}';

/** @throws {UsageError} for what is no URL to be pinged; it is not shown, since its path is a secret */
export function checkPingUrl(text: string, source: string): string {
  const filled = text.replaceAll(SCHEDULE, 'name');
  const url = URL.canParse(filled) ? new URL(filled) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol) && url.username + url.password === '') return text;
  throw new UsageError(
    `${source}: expected the http(s) URL of a check, without user and password, such as https://hc-ping.com/<uuid>`,
  );
}

/** Whether a URL has a place for the name of a schedule, which only a server has. */
export function isPerSchedule(url: string): boolean {
  return url.includes(SCHEDULE);
}

/** Where a run of a schedule, or one without, is pinged; undefined where the URL wants a schedule and there is none. */
export function pingUrlOf(url: string | undefined, schedule: string | undefined): string | undefined {
  if (url === undefined || !isPerSchedule(url)) return url;
  // Anybody may have named it in the queue.
  const filled = schedule && url.replaceAll(SCHEDULE, schedule.replace(/[^\w-]/g, '-'));
  return filled && URL.canParse(filled) ? filled : undefined;
}

/**
 * Reports one run to a monitor that calls people when it hears of a failure, or of nothing: POST `<url>/start`, then
 * `<url>` or `<url>/<exit code>`, as healthchecks.io takes them. It takes ten seconds at most, and a run is none the worse
 * for whatever becomes of it.
 */
export class Ping {
  readonly #isOver = new AbortController();
  #starting: Promise<void> = Promise.resolve();

  /**
   * @param url as `checkPingUrl` takes it; nothing is sent without one
   * @param warn gets one line, without the path, when a ping did not arrive
   */
  constructor(
    private readonly url: string | undefined,
    private readonly warn: (line: string) => void,
  ) {}

  start(text: string): void {
    this.#starting = this.#send(START, text, this.#isOver.signal);
  }

  /** Waits for what became of it. The monitor gets the start before the end, unless it does not take the start at all. */
  async end(exitCode: number, text: string): Promise<void> {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const stopTimer = startTimer(TRY_MS, () => this.#isOver.abort());
    await this.#starting;
    stopTimer();
    await this.#send(exitCode === 0 ? '' : `/${exitCode}`, text, signal);
  }

  async #send(suffix: string, text: string, signal: AbortSignal): Promise<void> {
    if (this.url === undefined) return;
    const target = new URL(this.url);
    target.pathname = target.pathname.replace(/\/*$/, suffix);
    for (let tries = 1; ; tries++) {
      const failure = await post(target, text.slice(0, LONGEST_TEXT), signal);
      // The end of the run says more than its start.
      if (failure === undefined || (suffix === START && this.#isOver.signal.aborted)) return;
      const isLast = failure.isLasting || tries === TRIES;
      if (!isLast && (await sleep(PAUSE_MS, signal))) continue;
      const what = suffix === START ? 'the start' : 'the end';
      this.warn(`--ping: ${target.host} ${failure.reason}: it does not know of ${what} of this run`);
      return;
    }
  }
}

/** One try. Redirects are not followed: what is behind one may take no POST. @returns what went wrong; isLasting: another try cannot help */
async function post(target: URL, text: string, signal: AbortSignal) {
  const timeout = AbortSignal.timeout(TRY_MS);
  const either = AbortSignal.any([signal, timeout]);
  const headers = { 'content-type': 'text/plain; charset=utf-8', 'user-agent': 'bulk-describe' };
  let dispatcher: Dispatcher | undefined;
  try {
    dispatcher = createAgent(target, 1, TRY_MS);
    const options = { dispatcher, method: 'POST', headers, body: text, signal: either } as const;
    const { statusCode: status, headers: answered, body } = await request(target, options);
    body.on('error', () => undefined).destroy();
    if (status < 300) return undefined;
    const { location } = answered;
    const to = typeof location === 'string' && URL.canParse(location, target.href);
    const where = to ? `, a redirect to ${new URL(location, target.href).origin}` : '';
    return { reason: `answers ${status}${where}`, isLasting: !isMomentary(status) };
  } catch (error) {
    if (signal.aborted || timeout.aborted) return { reason: 'does not answer', isLasting: false };
    const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
    return { reason: `cannot be reached (${messageOf(first)})`, isLasting: error instanceof UsageError };
  } finally {
    await dispatcher?.destroy();
  }
}
