import type { QueueKind } from './plan.js';
import type { RoundResult } from './round.js';

const HEAD = [
  'queue',
  'rounds',
  'processes killed',
  'rows',
  'paid',
  'expired',
  'lost',
  'twice',
  'wrong',
  'paid twice',
  'counted',
  'not counted',
  'unbalanced',
] as const;

/** The sums of all rounds, by queue, as a Markdown table. */
export function tableOf(results: readonly RoundResult[]): string {
  const kinds: readonly QueueKind[] = ['redis', 'embedded'];
  const lines = kinds
    .map((kind) => ({ kind, of: results.filter(({ plan }) => plan.queue === kind) }))
    .filter(({ of }) => of.length > 0)
    .map(({ kind, of }) => lineOf(kind, of));
  if (lines.length > 1) lines.push(lineOf('both', results));
  const widths = HEAD.map((name, column) =>
    Math.max(name.length, ...lines.map((line) => line[column]?.length ?? 0)),
  );
  const format = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = widths.map((width, column) =>
    column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [format(HEAD), format(rule), ...lines.map(format)].join('\n');
}

function lineOf(name: string, results: readonly RoundResult[]): string[] {
  const sum = (of: (result: RoundResult) => number) =>
    String(results.reduce((total, result) => total + of(result), 0));
  return [
    name,
    String(results.length),
    sum(({ kills }) => kills),
    sum(({ plan }) => plan.rows.length),
    sum(({ payments }) => payments.paid),
    sum(({ payments }) => payments.expired),
    sum(({ rows }) => rows.lost.length),
    sum(({ rows }) => rows.twice.length),
    sum(({ rows }) => rows.wrong.length),
    sum(({ payments }) => payments.paidTwice),
    sum(({ payments }) => payments.counted),
    sum(({ payments }) => payments.uncounted.length),
    sum(({ receipts }) => receipts.unbalanced.length),
  ];
}
