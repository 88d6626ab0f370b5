import { InterruptedEarlyError } from '../shared/errors.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const INTERRUPTED = 130;

/** Turns the first interrupt into an abort; the second one ends the process at once. */
export function listenForSignals(onFirst: (name: string) => void): {
  readonly signal: AbortSignal;
  dispose(): void;
} {
  const controller = new AbortController();
  const listener = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    onFirst(name === 'SIGINT' ? 'Ctrl-C' : name);
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, listener);
  return {
    signal: controller.signal,
    dispose() {
      for (const name of SIGNALS) process.off(name, listener);
    },
  };
}

/** Waits until the process is told to end. */
export function untilTold(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** What to throw instead of an error that may be the signal's own: that is no defect, and said in one line. */
export function interruptedOr(error: unknown, signal: AbortSignal, text: string): unknown {
  return signal.aborted && error === signal.reason ? new InterruptedEarlyError(text) : error;
}
