import type { Preview, RunResult } from '../run/run-options.js';
import { formatDuration, formatRate } from '../shared/limits.js';
import { isPermanent } from '../shared/jobs.js';
import { count, plural } from '../dashboard/texts.js';
import { fields, listOf, nearPath, printable } from './text.js';

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
  const { toSubmit, emptyRecords, unnamedColumns, unknownKeys } = preview;
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
  const leftOut = listOf([
    emptyRecords > 0 && plural(emptyRecords, 'empty record'),
    unnamedColumns > 0 && `${plural(unnamedColumns, 'empty column')} without a name`,
  ]);
  const keys = [...unknownKeys].slice(0, 5).join(', ');
  const rate = `at most ${formatRate(preview.limits.rate)}`;
  const end = `about ${formatDuration(preview.submitMs)}, until ${localEnd(preview.submitMs, now)}`;
  const doing = `${plural(toSubmit, 'image')} to submit, ${rate}: ${end}`;
  const first =
    preview.firstUrl === '' ? 'none that can be used' : `first ${printable(preview.firstUrl, 120)}`;
  return fields(
    ['manifest', `${preview.manifest}: ${found}`],
    ['', preview.unreadable !== undefined && `${printable(preview.unreadable)}: the rows before are run`],
    ['', emptyRecords + unnamedColumns > 0 && `left out: ${leftOut}`],
    [
      '',
      unknownKeys.size > 0 &&
        `left out: keys that the first records lack, or that hold bytes (${printable(keys)})`,
    ],
    ['images', `column "${printable(preview.urlColumn)}", ${first}`],
    ['output', nearPath(preview.output)],
    ['to do', preview.sampled && `${rate}, ${preview.limits.maxInFlight} in flight`],
    ['cost', preview.cost !== undefined && `about ${preview.cost.toFixed(2)}`],
    ['to do', !preview.sampled && (toSubmit === 0 ? 'nothing to submit' : doing)],
  );
}

/** What a receipt says that does not agree with the files. */
export function unbalancedLine({ differences }: Pick<RunResult, 'differences'>): string {
  return `the receipt does not balance: ${differences.join('; ')}`;
}

/**
 * The receipt for people.
 * @param resume the command that goes on with this run
 */
export function receiptLines(result: RunResult, resume: string): string[] {
  const { preview, receipt, stop, failedByCode, learnedShare = 1 } = result;
  if (receipt === undefined) return [];
  const counts = listOf([
    `${count(receipt.described)} described`,
    receipt.resumed > 0 && `${count(receipt.resumed)} resumed`,
    receipt.copied > 0 && `${count(receipt.copied)} copied`,
    receipt.failed > 0 && `${count(receipt.failed)} failed`,
    receipt.remaining > 0 && `${count(receipt.remaining)} remaining`,
  ]);
  const codes = [...failedByCode].map(([code, failures]) => `${count(failures)} ${code}`).join(', ');
  const calls = listOf([
    plural(receipt.submits, 'submit'),
    plural(receipt.polls, 'poll'),
    receipt.inputTokens + receipt.outputTokens > 0 &&
      `${count(receipt.inputTokens)} tokens in, ${count(receipt.outputTokens)} out`,
    receipt.reattached > 0 && `${count(receipt.reattached)} in flight since an earlier run`,
    receipt.maybePaidTwice > 0 && `${count(receipt.maybePaidTwice)} perhaps paid twice`,
    receipt.rescued > 0 && `${count(receipt.rescued)} rescued by webhooks`,
    formatDuration(receipt.seconds * 1000),
  ]);
  // Failures that are not permanent are tried again by the same command.
  const isWorthIt = [...failedByCode.keys()].some((code) => !isPermanent(code));
  const { twice } = receipt;
  const extra = receipt.extra - twice;
  const isUnfinished = receipt.remaining > 0 || isWorthIt || stop !== undefined;
  const rejected = failedByCode.get('rejected') ?? 0;
  const slowed = `slowed by the API to ${Math.round(learnedShare * 100)} % of ${formatRate(preview.limits.rate)}`;
  return [
    `${plural(receipt.rows, 'row')}${receipt.complete ? '' : ' read'}: ${counts}`,
    ...fields(
      ['calls', calls],
      ['cost', receipt.cost !== undefined && `${receipt.cost.toFixed(2)} over all starts of the run`],
      ['output', nearPath(receipt.output)],
      ['failures', receipt.failed > 0 && `${nearPath(receipt.failures)} (${codes})`],
      ['extra', extra > 0 && `${plural(extra, 'row')} of the output ${isOrAre(extra)} not in the manifest`],
      [
        'twice',
        twice > 0 &&
          `${plural(twice, 'row')} of the output ${isOrAre(twice)} there more often than in the manifest`,
      ],
      ['rest', !receipt.complete && 'the manifest was not read to its end: it may have more rows'],
      [
        'rest',
        receipt.complete &&
          stop === undefined &&
          receipt.remaining > 0 &&
          `${plural(receipt.remaining, 'row')} not taken on by this run (--limit): the next one goes on`,
      ],
      ['rate', learnedShare < 1 && `${slowed} when the run ended`],
    ),
    ...(receipt.balanced ? [] : [unbalancedLine(result)]),
    ...fields(
      ['stopped', stop && printable(stop.reason, 600)],
      ['resume', isUnfinished && resume],
      ['rejected', rejected > 0 && `${count(rejected)}, which --retry-rejected tries again as well`],
    ),
  ];
}
function isOrAre(number: number): string {
  return number === 1 ? 'is' : 'are';
}
