import { formatDuration } from '../shared/durations.js';
import type { Progress } from '../run/run-options.js';
import { count, listOf } from './text.js';

const BAR_WIDTH = 24;
/** A bar that is narrower tells nothing. */
const NARROWEST_BAR = 6;

/** @param room how many columns there are for it, with the space behind it */
function bar(share: number, room: number): string {
  const width = Math.min(BAR_WIDTH, room - '[] '.length);
  if (width < NARROWEST_BAR) return '';
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}] `;
}

/** `0.5/s` or `20.0/min`; empty for none. */
export function rateText(perSecond: number): string {
  if (perSecond === 0) return '';
  return perSecond >= 1 ? `${perSecond.toFixed(1)}/s` : `${(perSecond * 60).toFixed(1)}/min`;
}

/** Progress on one line, at most `width` columns wide: the bar gives way to the figures. */
export function progressLine(progress: Progress, width: number): string {
  const { settled, totalRows, share } = progress;
  const isCounted = totalRows !== undefined && totalRows > 0;
  const figures = listOf([
    isCounted ? `${count(settled)}/${count(totalRows)}` : `${count(settled)} rows`,
    `${count(progress.described + progress.copied)} described`,
    progress.resumed > 0 && `${count(progress.resumed)} resumed`,
    progress.failed > 0 && `${count(progress.failed)} failed`,
    `${count(progress.inFlight)} in flight`,
    rateText(progress.perSecond),
    share < 1 && `slowed to ${Math.round(share * 100)} % by the API`,
    progress.etaMs !== undefined && `${formatDuration(progress.etaMs)} left`,
  ]);
  const line = (isCounted ? bar(settled / totalRows, width - figures.length) : '') + figures;
  return line.length <= width ? line : line.slice(0, Math.max(0, width));
}
