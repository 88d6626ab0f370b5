/** A table of results; `note` says what it is about and how it was measured. */
export interface Table {
  readonly title: string;
  readonly note: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}

/** The table as Markdown; numbers to the right. */
export function markdownOf({ title, note, head, rows }: Table): string {
  const lines = rows.map((row) => row.map(String));
  const widths = head.map((name, column) =>
    Math.max(name.length, ...lines.map((line) => line[column]?.length ?? 0)),
  );
  const isText = (column: number) =>
    rows.some((row) => typeof row[column] === 'string' && !/^[\d<]/.test(row[column]));
  const pad = (cell: string, column: number) =>
    isText(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0);
  const format = (cells: readonly string[]) => `| ${cells.map(pad).join(' | ')} |`;
  const rule = widths.map((width, column) =>
    isText(column) ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [`### ${title}`, '', note, '', format(head), format(rule), ...lines.map(format)].join('\n');
}

/** Rounds to a sensible number of digits. */
export function round(value: number, digits = 3): number {
  return Number(value.toPrecision(digits));
}

/** The value that a share of all values is not above. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
