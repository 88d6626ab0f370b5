import { type ManifestRecord, type RecordReader, inBatches } from './record-reader.js';
import { readLines } from './text-lines.js';

/**
 * Reads a list: one URL a line, in one column named `url`.
 * @param name the manifest, for messages
 */
export function listReader(name: string): RecordReader {
  return {
    columns: ['url'],
    delimiter: ',',
    async *read(bytes) {
      let number = 0;
      for await (const lines of readLines(bytes, name)) {
        const records = lines.map(({ line, text, isUtf8 }): ManifestRecord => {
          const record = { line, number: ++number, cells: [text] };
          return isUtf8 ? record : { ...record, problem: 'not valid UTF-8' };
        });
        yield* inBatches(records);
      }
    },
  };
}
