import { isDeepStrictEqual } from 'node:util';
import type { Progress, RunEvent } from '../run/run-options.js';
import { type Logger, debugError } from '../shared/log.js';
import type { Claim } from './claim.js';
import {
  type RequestNames,
  type RunJobProgress,
  type RunRequest,
  type RunRequestJob,
  requestNames,
  runJobProgress,
  runRequestSchema,
} from './run-request.js';

const NOTHING_YET = { rows: 0, described: 0, resumed: 0, copied: 0, failed: 0, inFlight: 0, perSecond: 0 };

/** A request that this server executes: what is known of its run, and what its job shows of that. */
export class RunningRequest {
  #opened: { readonly run: string; readonly manifest: string; readonly output: string } | undefined;
  #written: RunJobProgress | undefined;
  #writing: Promise<void> = Promise.resolve();

  /** By this server or an earlier one. */
  readonly wasOpened: boolean;

  constructor(
    readonly claim: Claim,
    private readonly logger: Logger,
    private readonly onOpened: (opened: { run: string; output: string }) => Promise<void>,
  ) {
    this.wasOpened = runJobProgress(claim.job)?.state === 'opened';
  }

  get id(): string {
    return this.claim.id;
  }

  get job(): RunRequestJob {
    return this.claim.job;
  }

  get run(): string | undefined {
    return this.#opened?.run;
  }

  get output(): string | undefined {
    return this.#opened?.output;
  }

  /** What its job holds by now; undefined when that is no request, or one of another version. */
  get request(): RunRequest | undefined {
    return runRequestSchema.safeParse(this.job.data).data;
  }

  /** What people know it by, as far as its job shows. */
  get names(): Partial<RequestNames> {
    return requestNames(this.job.data) ?? {};
  }

  get name(): string {
    return this.output ?? this.names.output ?? this.names.manifest ?? `job ${this.id}`;
  }

  /** Takes note of an event of the run. The job's progress is the newest one, written when it is another one. */
  note(event: RunEvent): void {
    if (event.type === 'opened') {
      const { run, manifest, output } = event;
      this.#opened = { run, manifest, output };
      this.#write({ state: 'opened', ...this.#opened, ...NOTHING_YET });
      this.#queue(() => this.onOpened({ run, output }));
    } else if (event.type === 'progress') {
      if (this.#opened !== undefined) this.#write(progressOf(this.#opened, event.progress));
    } else if (event.type === 'notice') {
      this.#queue(async () => {
        await this.job.log(event.text);
      });
    }
  }

  /** The request could not be begun. */
  refuse(exitCode: number, reason: string): void {
    this.#write({ state: 'refused', exitCode, reason });
  }

  /** Waits until all of it is written, or could not be. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  #write(progress: RunJobProgress): void {
    if (isDeepStrictEqual(progress, this.#written)) return;
    this.#written = progress;
    this.#queue(async () => {
      // Only the newest counts, where the queue is slow.
      if (this.#written === progress) await this.job.updateProgress(progress);
    });
  }

  #queue(write: () => Promise<void>): void {
    const onError = debugError(this.logger, "a run's progress could not be stored", { job: this.id });
    this.#writing = this.#writing.then(write).catch(onError);
  }
}

function progressOf(
  opened: { readonly run: string; readonly manifest: string; readonly output: string },
  progress: Progress,
): RunJobProgress {
  const { rows, totalRows, described, resumed, copied, failed, inFlight, perSecond, etaMs } = progress;
  const counts = { rows, totalRows, described, resumed, copied, failed, inFlight, perSecond, etaMs };
  return { state: 'opened', ...opened, ...counts };
}
