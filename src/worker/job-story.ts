import type { Ending } from './ending.js';

/** A line for a job's log that says what becomes of it now. */
export function tellEnding(ending: Ending, run: string): string {
  const seconds = 'ms' in ending ? `${(ending.ms / 1000).toFixed(1)} s` : '';
  switch (ending.kind) {
    case 'outcome':
      return `handed over to run ${run}`;
    case 'hand-back':
      return 'handed back to the queue: the worker stops';
    case 'delay':
      return ending.ms > 0 ? `again in ${seconds}` : 'again as soon as the rate allows';
    case 'hold':
      return `the whole queue waits ${seconds}`;
    case 'rest':
      return `the API is down: this worker rests ${seconds}`;
    case 'stop':
      return `this worker takes no more images: ${ending.reason}`;
  }
}
