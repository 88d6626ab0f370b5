import { formatDuration } from '../shared/durations.js';
import type { Progress } from '../run/run-options.js';
import { count, listOf } from './text.js';

const BAR_WIDTH = 24;

function bar(share: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * BAR_WIDTH);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_WIDTH - full)}]`;
}

/** `0.5/s` or `20.0/min`; empty for none. */
export function rateText(perSecond: number): string {
  if (perSecond === 0) return '';
  return perSecond >= 1 ? `${perSecond.toFixed(1)}/s` : `${(perSecond * 60).toFixed(1)}/min`;
}

/** Progress on one line, at most `width` columns wide. */
export function progressLine(progress: Progress, width: number): string {
  const { settled, totalRows, share } = progress;
  const head =
    totalRows === undefined || totalRows === 0
      ? `${count(settled)} rows`
      : `${bar(settled / totalRows)} ${count(settled)}/${count(totalRows)}`;
  const line = listOf([
    head,
    `${count(progress.described + progress.copied)} described`,
    progress.resumed > 0 && `${count(progress.resumed)} resumed`,
    progress.failed > 0 && `${count(progress.failed)} failed`,
    `${count(progress.inFlight)} in flight`,
    rateText(progress.perSecond),
    share < 1 && `slowed to ${Math.round(share * 100)} % by the API`,
    progress.etaMs !== undefined && `${formatDuration(progress.etaMs)} left`,
  ]);
  return line.length <= width ? line : line.slice(0, Math.max(0, width));
}
