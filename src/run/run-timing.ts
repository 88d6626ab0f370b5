/** How often and how long a run looks, waits and gives up; tests look more often. All in milliseconds. */
export interface RunTiming {
  /** Progress, the workers' state. */
  readonly tickMs: number;
  /** Whether outstanding images still have their jobs; two looks in a row have to agree. */
  readonly reconcileEveryMs: number;
  /** After so long without any worker people are told. */
  readonly noWorkerNoticeMs: number;
  /** The queue may be away when a run ends: then its jobs stay as they are. */
  readonly closeDeadlineMs: number;
  /** How much of the rate a run may have waiting in the queue: another run that comes waits so long for its turn. */
  readonly windowMs: number;
  /** An API that has been down for so long, with no answer between, ends the run. */
  readonly downLimitMs: number;
}

export const RUN_TIMING: RunTiming = {
  tickMs: 1000,
  reconcileEveryMs: 30_000,
  noWorkerNoticeMs: 10_000,
  closeDeadlineMs: 10_000,
  windowMs: 60_000,
  downLimitMs: 15 * 60_000,
};
