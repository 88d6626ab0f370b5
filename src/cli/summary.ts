import type { SignedImage } from '../run/count-rows.js';
import type { CheckedUrls } from '../run/check-urls.js';
import type { Preview, RunResult } from '../run/run-options.js';
import { formatDuration, formatRate } from '../shared/limits.js';
import { isPermanent } from '../shared/jobs.js';
import { count, plural } from '../shared/plural.js';
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
  const { limits, answers, expiring, finishBy, polls, submitMs } = preview;
  const rate = `at most ${formatRate(limits.rate)}`;
  const answer = `${formatDuration(answers.ms)} an answer${answers.isMeasured ? '' : ' (assumed)'}`;
  const slower = answers.isSlower ? `, ${limits.maxInFlight} in flight, ${answer}` : '';
  const end = `about ${formatDuration(submitMs)}, until ${localEnd(submitMs, now)}`;
  const doing = `${plural(toSubmit, 'image')} to submit, ${rate}${slower}: ${end}`;
  const isDoing = !preview.sampled && toSubmit > 0;
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
    ['', preview.hasChanged && 'the manifest was written to while it was read: count it again'],
    ['', expiring.first && expiringText(expiring.images, expiring.first)],
    ['output', nearPath(preview.output)],
    ['left', preview.left > 0 && `${plural(preview.left, 'row')}, whose images are not in the sample`],
    ['to do', preview.sampled && `${rate}, ${preview.limits.maxInFlight} in flight`],
    ['cost', preview.cost !== undefined && `about ${preview.cost.toFixed(2)}`],
    ['to do', !preview.sampled && (toSubmit === 0 ? 'nothing to submit' : doing)],
    [
      'calls',
      isDoing && `${plural(toSubmit, 'submit')}${polls > 0 ? `, about ${plural(polls, 'poll')}` : ''}`,
    ],
    ['end', isDoing && finishBy !== undefined && finishText(finishBy, toSubmit, now)],
    ...(preview.checked === undefined ? [] : checkedFields(preview.checked)),
  );
}

function expiringText(images: number, { row, expiresAt }: SignedImage): string {
  const when = new Date(expiresAt).toLocaleString('sv-SE', { dateStyle: 'short', timeStyle: 'short' });
  return `${plural(images, 'signed URL')} will have expired when it is their turn, the first in row ${count(row)} at ${when}: sign them for longer`;
}

function finishText({ atMs, images }: NonNullable<Preview['finishBy']>, toSubmit: number, now: Date): string {
  const time = localEnd(atMs - now.getTime(), now);
  if (images >= toSubmit) return `by ${time}, as asked`;
  return `about ${count(images)} of them by ${time}, when it stops; the next start goes on with the others`;
}

function checkedFields({ images, bad }: CheckedUrls): [string, string][] {
  const troubles = Object.entries(bad).map(([kind, found]): [string, string] => {
    const { row, url, reason } = found.first;
    return [
      '',
      `${count(found.images)} ${kind.replaceAll('-', ' ')}, the first in row ${count(row)}: ${printable(url, 120)}: ${printable(reason)}`,
    ];
  });
  const all = troubles.length === 0 ? ': all can be had' : '';
  return [['checked', `${plural(images, 'image')}${all}`], ...troubles];
}

/** The preview for programs: the object of `plan --json`. Times are ISO 8601, UTC. */
export function planJson(preview: Preview, nowMs: number): Record<string, unknown> {
  const { manifest, output, urlColumn, rows, images, described, toCopy, failedBefore, left } = preview;
  const { badUrls, badRecords, duplicateKeys, emptyRecords, unreadable, sampled, hasChanged } = preview;
  const { toSubmit, polls, cost, limits, answers, submitMs, expiring, finishBy, checked } = preview;
  const expired = expiring.first;
  return {
    ...{ manifest, output, urlColumn, rows, images, described, toCopy, failedBefore, left },
    ...{ badUrls, badRecords, duplicateKeys, emptyRecords, unreadable, hasChanged },
    isComplete: !sampled && unreadable === undefined,
    submits: toSubmit,
    ...{ polls, cost, rate: formatRate(limits.rate), maxInFlight: limits.maxInFlight },
    answerSeconds: answers.ms / 1000,
    isAnswerMeasured: answers.isMeasured,
    seconds: submitMs / 1000,
    end: new Date(nowMs + submitMs).toISOString(),
    expiring: {
      images: expiring.images,
      first: expired && { row: expired.row, at: new Date(expired.expiresAt).toISOString() },
    },
    finishBy: finishBy && { at: new Date(finishBy.atMs).toISOString(), images: finishBy.images },
    checked,
  };
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
  const isUnfinished = receipt.remaining > preview.left || isWorthIt || stop !== undefined;
  const rejected = failedByCode.get('rejected') ?? 0;
  const slowed = `slowed by the API to ${Math.round(learnedShare * 100)} % of ${formatRate(preview.limits.rate)}`;
  return [
    `${plural(receipt.rows, 'row')}${receipt.complete ? '' : ' read'}: ${counts}`,
    ...fields(
      ['calls', calls],
      ['cost', receipt.cost !== undefined && `${receipt.cost.toFixed(2)} over all starts of the run`],
      ['output', nearPath(receipt.output)],
      // Failures of earlier starts have no codes here.
      ['failures', receipt.failed > 0 && nearPath(receipt.failures) + (codes && ` (${codes})`)],
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
          `${plural(receipt.remaining, 'row')} not taken on by this run (${preview.left > 0 ? '--sample): a larger one, or none, goes on' : '--limit): the next one goes on'}`,
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
