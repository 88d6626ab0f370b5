import { type ErrorCode, isPermanent } from '../shared/outcome.js';
import { type Rate, formatDuration, formatRate } from '../shared/durations.js';
import type { RunResult } from '../run/run-options.js';
import { count, listOf, nearPath, plural, printable } from './text.js';

/** What a receipt says that does not agree with the files. */
export function unbalancedLine({ differences }: Pick<RunResult, 'differences'>): string {
  return `the account does not balance: ${differences.join('; ')}`;
}

/**
 * The closing account for people.
 * @param resume the command that goes on with this run
 */
export function receiptLines(result: RunResult, resume: string): string[] {
  const { receipt, stop, failedByCode, learnedShare = 1 } = result;
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
    receipt.reattached > 0 && `${count(receipt.reattached)} in flight since an earlier run`,
    receipt.maybePaidTwice > 0 && `${count(receipt.maybePaidTwice)} perhaps paid twice`,
    receipt.rescued > 0 && `${count(receipt.rescued)} rescued by webhooks`,
    formatDuration(receipt.seconds * 1000),
  ]);
  const lines = [
    `${plural(receipt.rows, 'row')}${receipt.complete ? '' : ' read'}: ${counts}`,
    `calls     ${calls}`,
    `output    ${nearPath(receipt.output)}`,
  ];
  if (receipt.failed > 0) lines.push(`failures  ${nearPath(receipt.failures)} (${codes})`);
  if (receipt.extra > 0)
    lines.push(`extra     ${plural(receipt.extra, 'row')} of the output are not in the manifest`);
  if (learnedShare < 1) lines.push(`rate      ${slowedText(learnedShare, result.preview.limits.rate)}`);
  if (!receipt.balanced) lines.push(unbalancedLine(result));
  if (stop !== undefined) lines.push(`stopped   ${printable(stop.reason)}`);
  if (receipt.remaining > 0 || helps(failedByCode) || stop !== undefined) lines.push(`resume    ${resume}`);
  return lines;
}

function slowedText(share: number, rate: Rate): string {
  const percent = Math.round(share * 100);
  return `slowed by the API to ${percent} % of ${formatRate(rate)} when the run ended`;
}

/** Whether the same command tries some of the failed rows again. */
function helps(failedByCode: ReadonlyMap<ErrorCode, number>): boolean {
  return [...failedByCode.keys()].some((code) => !isPermanent(code));
}
