import type { FileHandle } from 'node:fs/promises';
import type { CsvHeader } from './csv-header.js';
import { formatRecord } from './csv-format.js';
import { replaceFile } from './durable-file.js';
import { GroupedWriter } from './grouped-writer.js';
import { forEachRow } from './output-scan.js';

/**
 * Rewrites an output for a manifest that has more columns than it had: rows keep their cells, by column name, and
 * get empty ones in the columns that are new. Atomic.
 * @returns bytes of a torn last record, which is left out
 * @throws {FatalError} when the new file cannot be written; the old one is untouched then
 */
export async function rewriteColumns(
  path: string,
  handle: FileHandle,
  header: CsvHeader,
  columns: readonly string[],
): Promise<number> {
  const places = columns.map((name) => header.columns.indexOf(name));
  let tornBytes = 0;
  await replaceFile(path, async (temp) => {
    const writer = new GroupedWriter(temp);
    await writer.write(formatRecord(columns, header.delimiter));
    const scanned = await forEachRow(path, handle, header, async (record) => {
      const cells = places.map((place) => (place === -1 ? '' : (record.cell(place) ?? '')));
      await writer.write(formatRecord(cells, header.delimiter));
    });
    await writer.end();
    tornBytes = scanned.tornBytes;
  });
  return tornBytes;
}
