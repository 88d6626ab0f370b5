import { hostname } from 'node:os';
import type { QueueConnection } from '../shared/queue/connection.js';
import { lastWord } from '../shared/queue/last-word.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { RUNS, type RunStatus } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import type { Receipt, RunStop } from './receipt.js';
import type { Progress } from './run-options.js';

/** A queue that is away keeps nobody waiting for the last word of a run. */
const LAST_WORD_MS = 2000;

/** Lets everybody at the same queue see how a run is getting on. */
export class RunPresence {
  readonly #about: Pick<
    RunStatus,
    'run' | 'account' | 'queueName' | 'manifest' | 'output' | 'schedule' | 'host' | 'pid' | 'startedAt'
  >;

  constructor(
    private readonly connection: Pick<QueueConnection, 'store' | 'isAway'>,
    about: Pick<RunStatus, 'run' | 'account' | 'queueName' | 'manifest' | 'output' | 'schedule'>,
  ) {
    this.#about = { ...about, host: hostname(), pid: process.pid, startedAt: Date.now() };
  }

  /** @param stopping why the run is about to end before its time */
  async tell(progress: Progress, byCode: ReadonlyMap<string, number>, stopping?: string): Promise<void> {
    const { rows, totalRows, described, resumed, copied, failed, perSecond, etaMs } = progress;
    const failedByCode = Object.fromEntries(byCode);
    const counts = { rows, totalRows, described, resumed, copied, failed, failedByCode, perSecond, etaMs };
    await registry.publish(this.connection.store, RUNS, this.#about.run, {
      ...this.#about,
      seenAt: Date.now(),
      ...counts,
      stopping,
    });
  }

  /** @throws when the queue does not take it within two seconds */
  async tellEnd(
    receipt: Receipt,
    byCode: ReadonlyMap<string, number>,
    stop: RunStop | undefined,
    exitCode: number,
  ): Promise<void> {
    const { rows, described, resumed, copied, failed, remaining } = receipt;
    const told = registry.publish(this.connection.store, RUNS, this.#about.run, {
      ...this.#about,
      seenAt: Date.now(),
      ...{ rows, totalRows: receipt.complete ? rows : undefined, described, resumed, copied, failed },
      failedByCode: Object.fromEntries(byCode),
      perSecond: receipt.seconds > 0 ? (described + copied + failed) / receipt.seconds : 0,
      ended: { exitCode, remaining, reason: stop?.reason },
    });
    await unlessAborted(told, lastWord(this.connection, LAST_WORD_MS));
  }
}
