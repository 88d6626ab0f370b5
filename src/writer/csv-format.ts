/** What makes quotes necessary, beside the delimiter. */
const SPECIAL = /["\r\n]/;

/**
 * One record as RFC 4180 text with its `\n`. Own lines in place of csv-stringify: its synchronous call sets up a
 * stringifier with all its options for every record, which triples the cost of a record, and its stream
 * would hide which bytes belong to which record, whose offsets the index needs.
 */
export function formatRecord(cells: readonly string[], delimiter: string): string {
  // An empty single cell would be a blank line, and blank lines are no records.
  if (cells.length === 1 && cells[0] === '') return '""\n';
  let line = '';
  for (let index = 0; index < cells.length; index++) {
    if (index > 0) line += delimiter;
    line += formatCell(cells[index] ?? '', delimiter);
  }
  return `${line}\n`;
}

function formatCell(text: string, delimiter: string): string {
  if (!SPECIAL.test(text) && !text.includes(delimiter)) return text;
  return `"${text.replaceAll('"', '""')}"`;
}
