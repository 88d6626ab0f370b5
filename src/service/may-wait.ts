/** What is known of a request whose output another process has. */
export interface BusyRequest {
  /** 1 when it is new. */
  readonly attemptsStarted: number;
  /** Its files have been open: whoever has them now has its run. */
  readonly wasOpened: boolean;
  /** A process that has the output, or the run, has told of itself lately. */
  readonly isHolderAlive: boolean;
  /** Since when it waits without any sign of life. */
  readonly silentMs: number;
}

const SILENT_LIMIT_MS = 60_000;

/**
 * Whether a request whose output is busy waits for it, or is refused. A new one is refused, as is one that never had its
 * output when whoever has that shows no life for a minute. But a run that has begun is never refused for its own home: that
 * may be frozen for however long, and when it dies nobody else would resume the run.
 */
export function mayWait(request: BusyRequest): boolean {
  if (request.attemptsStarted <= 1) return false;
  return request.wasOpened || request.isHolderAlive || request.silentMs < SILENT_LIMIT_MS;
}
