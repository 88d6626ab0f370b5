import type { FileHandle } from 'node:fs/promises';
import type { SchemaElement } from 'hyparquet';
import { z } from 'zod';
import { type ParquetFile, bytesOf, cellOf, readMetadata, readRange } from '../producer/parquet-format.js';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import {
  type Cells,
  type JsonCell,
  NULL_CELL,
  jsonText,
  objectIn,
  readJsonCell,
} from '../shared/json-cells.js';
import { readLines } from '../shared/lines.js';
import { parseJson } from '../shared/parse-json.js';
import { JsonlTable, pick } from './jsonl-table.js';
import { MAX_ROW_BYTES, type TableEnd, type TableReading, readPieces } from './table.js';

/** A row group is written once it has so many rows, or rows of so many characters. */
const GROUP_ROWS = 10_000;
const GROUP_CHARS = 1 << 25;

/** Where a file says what its columns are, and which program has written it. */
const PACKED_BY = 'bulk-describe';

const TYPES = ['string', 'boolean', 'int', 'double', 'list', 'json'] as const;
/** `json`: the JSON text of what is mixed, nested, or has digits that a double does not hold. */
type ColumnType = (typeof TYPES)[number];
type ParquetValue = string | boolean | bigint | number | string[] | null;

const packedColumnsSchema = z.array(z.object({ name: z.string(), type: z.enum(TYPES) }));
type PackedColumn = z.infer<typeof packedColumnsSchema>[number];

const stringsSchema = z.array(z.string());

/** Half of a character of two: no UTF-8 can say it. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * The types that a cell allows its column, the plainest first.
 * @param isExact whether it has to be read back with the very digits and spaces that it has
 */
export function typesOf({ cell, isJson }: JsonCell, isExact: boolean): readonly ColumnType[] {
  if (isJson && cell === '') return TYPES;
  if (!isJson) return LONE_SURROGATE.test(cell) ? ['json'] : ['string', 'json'];
  if (cell === 'true' || cell === 'false') return ['boolean', 'json'];
  if (cell.startsWith('[')) {
    const strings = stringsSchema.safeParse(parseJson(cell)).data;
    const isList = strings !== undefined && !strings.some((text) => LONE_SURROGATE.test(text));
    return isList && !(isExact && JSON.stringify(strings) !== cell) ? ['list', 'json'] : ['json'];
  }
  const types: ColumnType[] = ['json'];
  const shortest = String(Number(cell));
  if (isExact ? shortest === cell : decimalOf(shortest) === decimalOf(cell)) types.unshift('double');
  if (/^(0|-?[1-9]\d{0,18})$/.test(cell) && BigInt.asIntN(64, BigInt(cell)) === BigInt(cell)) {
    types.unshift('int');
  }
  return types;
}

/** The number that a text means, however it is written. */
function decimalOf(text: string): string {
  const [, sign = '', whole = '', part = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(text) ?? [];
  const digits = (whole + part).replace(/^0+/, '');
  const kept = digits.replace(/0+$/, '');
  if (kept === '') return whole === '' ? text : '0';
  return `${sign}${kept}e${Number(exponent) - part.length + digits.length - kept.length}`;
}

function toValue({ cell, isJson }: JsonCell, type: ColumnType): ParquetValue {
  if (isJson && cell === '') return null;
  switch (type) {
    case 'string':
      return cell;
    case 'boolean':
      return cell === 'true';
    case 'int':
      return BigInt(cell);
    case 'double':
      return Number(cell);
    case 'list':
      return stringsSchema.parse(JSON.parse(cell));
    case 'json':
      return jsonText(cell, isJson);
  }
}

const TEXT = { type: 'BYTE_ARRAY', converted_type: 'UTF8' } as const;
const SCALARS: Record<Exclude<ColumnType, 'list'>, Pick<SchemaElement, 'type' | 'converted_type'>> = {
  ...{ string: TEXT, json: TEXT },
  ...{ boolean: { type: 'BOOLEAN' }, int: { type: 'INT64' }, double: { type: 'DOUBLE' } },
};

/** How Parquet is told what a column is. */
function schemaOf({ name, type }: PackedColumn): SchemaElement[] {
  const optional = { name, repetition_type: 'OPTIONAL' } as const;
  if (type !== 'list') return [{ ...optional, ...SCALARS[type] }];
  return [
    { ...optional, converted_type: 'LIST', num_children: 1 },
    { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
    { ...optional, ...TEXT, name: 'element' },
  ];
}

/** A Parquet file of this program that is open for reading. */
interface Packed extends ParquetFile {
  readonly types: readonly PackedColumn[];
}

/**
 * The rows of a Parquet output, to be read: an offset is the number of a row. What is to be appended to is its working
 * file, JSON Lines, which is why this is how its rows are written.
 */
export class ParquetTable extends JsonlTable {
  #group: { readonly start: number; readonly rows: readonly (readonly unknown[])[] } | undefined;

  constructor(
    columns: readonly string[],
    answerColumns: readonly string[],
    private readonly path: string,
    private readonly packed?: Packed,
  ) {
    super(columns, answerColumns);
  }

  override get places(): number {
    return Number(this.packed?.metadata.num_rows ?? 0n);
  }

  override isEmpty(): boolean {
    return this.packed?.metadata.num_rows === 0n;
  }

  /** @throws {UsageError} when it is no Parquet file, or not as this program has written it */
  override async open(handle: FileHandle): Promise<ParquetTable> {
    const packed = await this.#readPacked(handle);
    const table = new ParquetTable(this.columns, this.answerColumns, this.path, packed);
    const [first] = await table.#readGroup(handle, 0);
    if (first === undefined) return table;
    return new ParquetTable([...table.#cellsOf(first).keys()], this.answerColumns, this.path, packed);
  }

  override async forEach(handle: FileHandle, reading: TableReading): Promise<TableEnd> {
    const { columns, signal, visit } = reading;
    const count = this.places;
    for (let start = 0; start < count;) {
      signal?.throwIfAborted();
      const rows = await this.#readGroup(handle, start);
      const from = start;
      await visit(rows.map((row, at) => ({ ...pick(this.#cellsOf(row), columns), offset: from + at })));
      start += rows.length;
    }
    return { end: count, ending: 'whole' };
  }

  override async readAt(
    handle: FileHandle,
    offset: number,
    columns: readonly string[],
    count = 1,
  ): Promise<Required<Cells>[]> {
    const group = await this.#readGroup(handle, offset);
    const first = offset - (this.#group?.start ?? 0);
    const rows = group.slice(first, first + count).map((row) => pick(this.#cellsOf(row), columns));
    const left = count - rows.length;
    if (left === 0 || rows.length === 0) return rows;
    return [...rows, ...(await this.readAt(handle, offset + rows.length, columns, left))];
  }

  #cellsOf(row: readonly unknown[]): Map<string, JsonCell> {
    const { types = [], columns = [] } = this.packed ?? {};
    const broken = new Set<string>();
    const members = columns.map((column, index): [string, JsonCell] => {
      const found = cellOf(row[index], column, broken);
      const isText = types[index]?.type === 'json' && !found.isJson;
      return [column.element.name, isText ? readJsonCell(found.cell) : found];
    });
    if (broken.size > 0) this.#refuse(new Error('bytes that are not UTF-8'));
    return this.promptsApart(new Map(members));
  }

  /** The rows of the group that holds one; the last group that was read is kept. */
  async #readGroup(handle: FileHandle, row: number): Promise<readonly (readonly unknown[])[]> {
    const held = this.#group;
    if (held !== undefined && row >= held.start && row < held.start + held.rows.length) return held.rows;
    let start = 0;
    for (const { num_rows } of this.packed?.metadata.row_groups ?? []) {
      const end = start + Number(num_rows);
      if (this.packed !== undefined && row < end) {
        const opened = { ...this.packed, file: await bytesOf(handle) };
        const rows = await readRange(opened, start, end).catch(this.#refuse);
        this.#group = { start, rows };
        return rows;
      }
      start = end;
    }
    return [];
  }

  async #readPacked(handle: FileHandle): Promise<Packed> {
    const file = await readMetadata(handle).catch(this.#refuse);
    const { metadata } = file;
    const said = metadata.key_value_metadata?.find(({ key }) => key === PACKED_BY)?.value ?? '';
    const types = packedColumnsSchema.safeParse(parseJson(said)).data ?? [];
    const expected = types.flatMap(schemaOf).map(({ name, type }) => `${type ?? ''} ${name}`);
    const found = metadata.schema.slice(1).map(({ name, type }) => `${type ?? ''} ${name}`);
    const isOurs = metadata.created_by === PACKED_BY && types.length > 0;
    if (!isOurs || expected.join('\n') !== found.join('\n')) {
      this.#refuse(new Error(`written by ${metadata.created_by ?? 'another program'}`));
    }
    return { ...file, types };
  }

  readonly #refuse = (cause: unknown): never => {
    const reason = messageOf(cause).replace(/\s+/g, ' ').slice(0, 120);
    throw new UsageError(
      `the output ${this.path} is no Parquet file as bulk-describe writes it (${reason}): put its own back, or name another output with -o`,
      { cause },
    );
  };
}

/**
 * Writes the rows of a working file as Parquet.
 * @param sample an empty row of that file
 * @param exact columns whose cells are to be read back as they were, to the letter
 */
export async function writeParquet(
  handle: FileHandle,
  sample: string,
  exact: ReadonlySet<string>,
  temp: FileHandle,
): Promise<void> {
  const { ByteWriter, ParquetWriter } = await import('hyparquet-writer');
  const columns = await findTypes(handle, sample, exact);
  const writer = new ByteWriter();
  const flush = async () => {
    await temp.writeFile(writer.getBytes());
    writer.index = 0;
  };
  const parquet = new ParquetWriter({
    writer: Object.assign(writer, { flush }),
    schema: [{ name: 'schema', num_children: columns.length }, ...columns.flatMap(schemaOf)],
    statisticsTruncateLength: 64,
    createdBy: PACKED_BY,
    kvMetadata: [{ key: PACKED_BY, value: JSON.stringify(columns) }],
  });
  let data: ParquetValue[][] = columns.map(() => []);
  let chars = 0;
  const writeGroup = async () => {
    const columnData = columns.map(({ name }, index) => ({ name, data: data[index] ?? [] }));
    await parquet.write({ columnData, rowGroupSize: GROUP_ROWS });
    data = columns.map(() => []);
    chars = 0;
  };
  for await (const { members, length } of rowsOf(handle)) {
    for (const [index, { name, type }] of columns.entries()) {
      data[index]?.push(toValue(members.get(name) ?? NULL_CELL, type));
    }
    chars += length;
    if (chars >= GROUP_CHARS || data[0]?.length === GROUP_ROWS) await writeGroup();
  }
  await writeGroup();
  await parquet.finish();
  await flush();
}

async function findTypes(handle: FileHandle, sample: string, exact: ReadonlySet<string>) {
  const [first = ''] = sample.split('\n', 1);
  const names = [...(objectIn(first) ?? [])].map(([name]) => name);
  const left = new Map<string, readonly ColumnType[] | undefined>(names.map((name) => [name, undefined]));
  for await (const { members } of rowsOf(handle)) {
    for (const [name, cell] of members) {
      const types = typesOf(cell, exact.has(name));
      left.set(name, left.get(name)?.filter((type) => types.includes(type)) ?? types);
    }
  }
  return names.map((name): PackedColumn => ({ name, type: left.get(name)?.[0] ?? 'string' }));
}

/** The rows of a working file, as they are in it. */
async function* rowsOf(
  handle: FileHandle,
): AsyncGenerator<{ readonly members: Map<string, JsonCell>; readonly length: number }> {
  const { size } = await handle.stat();
  const pieces = readPieces(handle, 0, size);
  for await (const lines of readLines(pieces, { name: 'the output', maxBytes: MAX_ROW_BYTES })) {
    for (const { text, line } of lines) {
      const members = objectIn(text);
      if (members === undefined) throw new FatalError(`the output was changed: no row in line ${line}`);
      yield { members, length: text.length };
    }
  }
}
