import { formatDuration, formatRate } from '../shared/durations.js';
import type { Preview } from '../run/run-options.js';
import { count, listOf, nearPath, plural, printable } from './text.js';

/** When something that starts now and takes `ms` is over, in local time: `14:10`, `Tue 14:10`, `Tue 3 Mar 14:10`. */
export function localEnd(ms: number, now: Date): string {
  const end = new Date(now.getTime() + ms);
  const time = end.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  const days = ms / 86_400_000;
  if (end.toDateString() === now.toDateString()) return time;
  const weekday = end.toLocaleDateString('en-GB', { weekday: 'short' });
  if (days < 6) return `${weekday} ${time}`;
  return `${weekday} ${end.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${time}`;
}

/** The preview as lines: what there is to do, with what, and how long that takes. */
export function previewLines(preview: Preview, now: Date): string[] {
  const { rows, images, described, toCopy, failedBefore, badUrls, badRecords, duplicateKeys } = preview;
  const { toSubmit } = preview;
  const about = preview.sampled ? ' (of the first records)' : '';
  const found = listOf([
    `${plural(rows, 'row')}${about}`,
    plural(images, 'image'),
    described > 0 && `${count(described)} already described`,
    toCopy > 0 && `${count(toCopy)} to copy`,
    failedBefore > 0 && `${count(failedBefore)} failed for good before`,
    badUrls > 0 && `${count(badUrls)} without or with a bad URL`,
    badRecords > 0 && plural(badRecords, 'bad record'),
    duplicateKeys > 0 && plural(duplicateKeys, 'duplicate key'),
  ]);
  const rate = `at most ${formatRate(preview.limits.rate)}`;
  const end = `about ${formatDuration(preview.submitMs)}, until ${localEnd(preview.submitMs, now)}`;
  return [
    `manifest  ${preview.manifest}: ${found}`,
    ...(preview.unreadable === undefined
      ? []
      : [`          ${printable(preview.unreadable)}: the rows before are run`]),
    `images    column "${printable(preview.urlColumn)}", first ${printable(preview.firstUrl, 120)}`,
    `output    ${nearPath(preview.output)}`,
    preview.sampled
      ? `to do     ${rate}, ${preview.limits.maxInFlight} in flight`
      : toSubmit === 0
        ? 'to do     nothing to submit'
        : `to do     ${plural(toSubmit, 'image')} to submit, ${rate}: ${end}`,
  ];
}
