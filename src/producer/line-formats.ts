import { UsageError, messageOf } from '../shared/errors.js';
import { type JsonCell, readJsonObject } from '../shared/json-cells.js';
import { type TextLine, readLines } from '../shared/lines.js';
import { checkColumnNames } from './columns.js';
import {
  MAX_RECORD_BYTES,
  type ManifestRecord,
  type RecordBatches,
  readAhead,
  textFormat,
} from './manifest-format.js';

/** The columns are the keys of this many records. */
const HEAD_RECORDS = 100;
/** A file whose first lines, this many, hold no object at all is something else than JSON Lines. */
const FIRST_RECORDS = 10;

/** A list: one URL a line, in one column named `url`. */
export const openList = textFormat((bytes, { name }) => {
  const batches = readRecords(
    readLines(bytes, { name, maxBytes: MAX_RECORD_BYTES }),
    ({ line, text, isValid }, number) => ({
      line,
      number,
      cells: [text],
      ...(!isValid && { problem: 'not valid UTF-8' }),
    }),
  );
  return Promise.resolve({ columns: ['url'], delimiter: ',', batches });
});

const MISSING: JsonCell = { cell: '', isJson: true };

type Parsed = { readonly cells: ReadonlyMap<string, JsonCell> } | { readonly problem: string };

/** JSON Lines. The columns are the keys of the first 100 records in the order in which they appear. */
export const openJsonl = textFormat(async (bytes, { name, columns: known }) => {
  const lines = readLines(bytes, { name, maxBytes: MAX_RECORD_BYTES });
  const { ahead, all } = await readAhead(lines, (taken) => taken.flat().length >= HEAD_RECORDS);
  const columns = known ?? findColumns(ahead.flat().slice(0, HEAD_RECORDS), name);
  const keys = new Set(columns);
  const batches = readRecords(all, (line, number) => recordOf(line, number, keys));
  return { columns, delimiter: ',', batches };
});

function findColumns(lines: readonly TextLine[], name: string): readonly string[] {
  if (lines[0]?.text.trimStart().startsWith('[')) {
    throw new UsageError(`${name} is a JSON array: make JSON Lines of it, one object a line (jq -c '.[]')`);
  }
  const records = lines.map(parseLine);
  const first = records.slice(0, FIRST_RECORDS);
  const [problem] = first.flatMap((record) => ('problem' in record ? [record.problem] : []));
  if (problem !== undefined && first.every((record) => 'problem' in record)) {
    throw new UsageError(
      `${name} is no JSON Lines, which is one object a line: its first record is ${problem}`,
    );
  }
  const columns = [
    ...new Set(records.flatMap((record) => ('cells' in record ? [...record.cells.keys()] : []))),
  ];
  if (records.length > 0 && columns.length === 0) throw new UsageError(`${name}: its objects have no keys`);
  checkColumnNames(columns, name);
  return columns;
}

async function* readRecords(
  lines: AsyncIterable<readonly TextLine[]>,
  toRecord: (line: TextLine, number: number) => ManifestRecord,
): RecordBatches {
  let number = 0;
  for await (const some of lines) yield some.map((line) => toRecord(line, ++number));
}

/** @param columns in their order */
function recordOf(line: TextLine, number: number, columns: ReadonlySet<string>): ManifestRecord {
  const parsed = parseLine(line);
  if ('problem' in parsed) {
    return { line: line.line, number, cells: Array.from(columns, () => ''), problem: parsed.problem };
  }
  const found = Array.from(columns, (column) => parsed.cells.get(column) ?? MISSING);
  const record = {
    line: line.line,
    number,
    cells: found.map(({ cell }) => cell),
    isJson: found.map(({ isJson }) => isJson),
  };
  const unknown = [...parsed.cells.keys()].filter((key) => !columns.has(key));
  if (unknown.length === 0) return record;
  // What is kept of the record is not to hold megabytes of what is left out: a piece of a text holds all of it.
  return { ...record, cells: structuredClone(record.cells), unknownKeys: structuredClone(unknown) };
}

function parseLine({ text, isValid }: TextLine): Parsed {
  if (!isValid) return { problem: 'not valid UTF-8' };
  try {
    const cells = readJsonObject(text);
    return cells === undefined ? { problem: 'JSON, but no object' } : { cells };
  } catch (error) {
    // The engine's message quotes the text, which may be as long as a record can be.
    return { problem: `no JSON (${messageOf(error).slice(0, 120)})` };
  }
}
