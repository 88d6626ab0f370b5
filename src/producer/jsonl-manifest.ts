import { UsageError, messageOf } from '../shared/errors.js';
import { checkColumnNames, listNames } from './column-names.js';
import { readJsonObject } from './json-object.js';
import { type ManifestRecord, type RecordReader, inBatches } from './record-reader.js';
import { type TextLine, readLines } from './text-lines.js';

/** The columns are the keys of this many records. */
const HEAD_RECORDS = 100;
/** A file whose first lines, this many, hold no object at all is something else than JSON Lines. */
const FIRST_RECORDS = 10;

type Parsed = { readonly cells: ReadonlyMap<string, string> } | { readonly problem: string };

/**
 * Finds the columns of a JSON Lines manifest: the keys of its first 100 records in the order in which they appear.
 * @param head the manifest from its first byte; it is not read further than necessary
 * @throws {UsageError} when it is no JSON Lines, or its keys cannot be columns
 */
export async function openJsonl(head: AsyncIterable<Buffer>, name: string): Promise<RecordReader> {
  const lines = await firstLines(head, name);
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
  return jsonlReader(columns, name);
}

function jsonlReader(columns: readonly string[], name: string): RecordReader {
  const known = new Set(columns);
  return {
    columns,
    delimiter: ',',
    async *read(bytes) {
      let number = 0;
      for await (const lines of readLines(bytes, name)) {
        yield* inBatches(lines.map((line) => recordOf(line, ++number, columns, known)));
      }
    },
  };
}

function recordOf(
  line: TextLine,
  number: number,
  columns: readonly string[],
  known: ReadonlySet<string>,
): ManifestRecord {
  const parsed = parseLine(line);
  if ('problem' in parsed) {
    return { line: line.line, number, cells: columns.map(() => ''), problem: parsed.problem };
  }
  const record = { line: line.line, number, cells: columns.map((column) => parsed.cells.get(column) ?? '') };
  const unknown = [...parsed.cells.keys()].filter((key) => !known.has(key));
  if (unknown.length === 0) return record;
  return {
    ...record,
    problem: `keys that the first ${HEAD_RECORDS} records do not have: ${listNames(unknown)}`,
  };
}

function parseLine({ text, isUtf8 }: TextLine): Parsed {
  if (!isUtf8) return { problem: 'not valid UTF-8' };
  try {
    const cells = readJsonObject(text);
    return cells === undefined ? { problem: 'JSON, but no object' } : { cells };
  } catch (error) {
    // The engine's message quotes the text, which may be as long as a record can be.
    return { problem: `no JSON (${messageOf(error).slice(0, 120)})` };
  }
}

async function firstLines(bytes: AsyncIterable<Buffer>, name: string): Promise<TextLine[]> {
  const head: TextLine[] = [];
  for await (const lines of readLines(bytes, name)) {
    head.push(...lines.slice(0, HEAD_RECORDS - head.length));
    if (head.length === HEAD_RECORDS) break;
  }
  return head;
}
