import { UsageError } from '../shared/errors.js';
import { NULL_CELL, readJsonObject, toCells } from '../shared/json-cells.js';
import { readLines } from '../shared/lines.js';
import { checkColumnNames, listNames } from './columns.js';
import { type ItemText, findLists, readItems } from './json-records.js';
import {
  MAX_RECORD_BYTES,
  NOT_UTF8,
  TRY_ENCODING,
  type ManifestRecord,
  type ManifestSource,
  type OpenFormat,
  type OpenOptions,
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
      ...(!isValid && { problem: NOT_UTF8 + TRY_ENCODING }),
    }),
  );
  return Promise.resolve({ columns: ['url'], delimiter: ',', batches });
});

type NamedOptions = OpenOptions & { readonly name: string };

/** JSON Lines. The columns are the keys of the first 100 records in the order in which they appear. */
export const openJsonl = textFormat((bytes, options) => openLines(bytes, options));

async function openLines(bytes: AsyncGenerator<Buffer, void>, { name, known }: NamedOptions) {
  const lines = readLines(bytes, { name, maxBytes: MAX_RECORD_BYTES });
  const { ahead, all } = await readAhead(lines, (taken) => taken.length > 0);
  if (ahead[0]?.[0]?.text.trimStart().startsWith('['))
    throw new UsageError(`${name} is a JSON array, not an object a line: say --format json`);
  return openObjects(all, known, name, 'JSON Lines, which is one object a line');
}

/**
 * JSON: a list of objects, or an object that has one in it; the columns are found as those of JSON Lines, which is read too
 * where the first line is a whole object and more follow.
 */
export const openJson: OpenFormat = (source, options, signal) =>
  textFormat(async (bytes, named) => {
    const { name, known } = named;
    const { ahead, all } = await readAhead(bytes, hasFirstLine());
    const head = Buffer.concat(ahead).toString().trimStart();
    const [first = '', ...more] = head.split('\n');
    if (!/^[[{]/.test(head)) throw new UsageError(`${name} is no JSON: it begins with ${first.slice(0, 40)}`);
    const isLines = head.startsWith('{') && more.some((line) => line.trim() !== '');
    if (isLines && options.records === undefined && !('problem' in parseLine({ text: first, isValid: true })))
      return await openLines(all, named);
    const records = options.records ?? (head.startsWith('[') ? '' : await findList(source, signal));
    const items = readItems(all, name, records);
    return { ...(await openObjects(items, known, name, 'list of objects')), records };
  })(source, options, signal);

/** Whether so many pieces have all of the first line with text, and something behind it, where that can be a whole object. */
function hasFirstLine(): (pieces: readonly Buffer[]) => boolean {
  let head = '';
  return (pieces) => {
    head = (head + (pieces.at(-1)?.toString('latin1') ?? '')).trimStart();
    return /^[^{]/.test(head) || head.length > MAX_RECORD_BYTES || /\n\s*\S/.test(head);
  };
}

/** Where the records are in an object that is a file. @throws {UsageError} when it has none, or several lists */
async function findList(source: ManifestSource, signal: AbortSignal): Promise<string> {
  const { name } = source;
  if (!source.replayable)
    throw new UsageError(`${name} is a JSON object: name the list in it with --records <path>`);
  const found = await findLists(source.read(signal), name);
  if (found[0] !== undefined && found.length === 1) return found[0];
  if (found.length === 0) throw new UsageError(`${name} is a JSON object without a list of objects in it`);
  throw new UsageError(`${name} has several lists of objects: say --records <path>: ${listNames(found)}`);
}

async function openObjects<Text extends ItemText>(
  texts: AsyncGenerator<readonly Text[], void>,
  known: readonly string[] | undefined,
  name: string,
  what: string,
) {
  const { ahead, all } = await readAhead(texts, (taken) => taken.flat().length >= HEAD_RECORDS);
  const columns = known ?? findColumns(ahead.flat().slice(0, HEAD_RECORDS), name, what);
  const keys = new Set(columns);
  const batches = readRecords(all, (line, number) => recordOf(line, number, keys));
  return { columns, delimiter: ',', batches };
}

function findColumns(lines: readonly ItemText[], name: string, what: string): readonly string[] {
  const records = lines.map(parseLine);
  const first = records.slice(0, FIRST_RECORDS);
  const [problem] = first.flatMap((record) => ('problem' in record ? [record.problem] : []));
  if (problem !== undefined && first.every((record) => 'problem' in record)) {
    throw new UsageError(`${name} is no ${what}: its first record is ${problem}`);
  }
  const columns = [...new Set(records.flatMap((record) => ('problem' in record ? [] : [...record.keys()])))];
  if (records.length > 0 && columns.length === 0) throw new UsageError(`${name}: its objects have no keys`);
  checkColumnNames(columns, name);
  return columns;
}

async function* readRecords<Text>(
  lines: AsyncIterable<readonly Text[]>,
  toRecord: (line: Text, number: number) => ManifestRecord,
): RecordBatches {
  let number = 0;
  for await (const some of lines) yield some.map((line) => toRecord(line, ++number));
}

/** @param columns in their order */
function recordOf(line: ItemText, number: number, columns: ReadonlySet<string>): ManifestRecord {
  const parsed = parseLine(line);
  if ('problem' in parsed) {
    return { line: line.line, number, cells: Array.from(columns, () => ''), problem: parsed.problem };
  }
  const cells = toCells(Array.from(columns, (column) => parsed.get(column) ?? NULL_CELL));
  const record = { line: line.line, number, ...cells };
  const unknown = [...parsed.keys()].filter((key) => !columns.has(key));
  if (unknown.length === 0) return record;
  // What is kept of the record is not to hold megabytes of what is left out: a piece of a text holds all of it.
  return { ...record, cells: structuredClone(record.cells), unknownKeys: structuredClone(unknown) };
}

function parseLine({ text, isValid }: Pick<ItemText, 'text' | 'isValid'>) {
  return isValid ? readJsonObject(text) : { problem: NOT_UTF8 + TRY_ENCODING };
}
