import { UsageError } from '../shared/errors.js';

export const MANIFEST_FORMATS = ['csv', 'tsv', 'jsonl', 'list'] as const;

export type ManifestFormat = (typeof MANIFEST_FORMATS)[number];

/** The formats by the ending of a manifest's name; `.gz` may follow it. */
const FORMAT_OF_ENDING: Readonly<Record<string, ManifestFormat>> = {
  '.csv': 'csv',
  '.tsv': 'tsv',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.txt': 'list',
  '.list': 'list',
  '.urls': 'list',
};

/**
 * Tells a manifest's format: the one that is given, else the one of its name's ending.
 * @param path `-` for stdin
 * @throws {UsageError} when there is neither
 */
export function manifestFormat(path: string, given?: ManifestFormat): ManifestFormat {
  if (given !== undefined) return given;
  const formats = MANIFEST_FORMATS.join('|');
  if (path === '-') {
    throw new UsageError(`the manifest comes from stdin: say what it is with --format ${formats}`);
  }
  const ending = /\.[^./\\]+$/.exec(path.replace(/\.gz$/i, ''))?.[0].toLowerCase() ?? '';
  const format = Object.hasOwn(FORMAT_OF_ENDING, ending) ? FORMAT_OF_ENDING[ending] : undefined;
  if (format === undefined) {
    const known = Object.keys(FORMAT_OF_ENDING).join(' ');
    throw new UsageError(
      `${path}: its name does not tell its format (known: ${known}, each also with .gz): say --format ${formats}`,
    );
  }
  return format;
}

/**
 * Reads `--delimiter`, which also may be spelled `\t` or `tab`.
 * @throws {UsageError} when it is not one character that can delimit
 */
export function parseDelimiter(text: string): string {
  const delimiter = text === '\\t' || text === 'tab' ? '\t' : text;
  if (/^[\t -!#-~]$/.test(delimiter)) return delimiter;
  throw new UsageError(
    `--delimiter ${JSON.stringify(text)}: expected one ASCII character other than a quote, such as ; or tab`,
  );
}

/**
 * The delimiter of a manifest.
 * @returns undefined when none is given and a csv's header has to tell
 * @throws {UsageError} when what is given cannot delimit, or does not go with the format
 */
export function manifestDelimiter(format: ManifestFormat, given?: string): string | undefined {
  if (given === undefined) return format === 'tsv' ? '\t' : undefined;
  const delimiter = parseDelimiter(given);
  if (format === 'csv' || (format === 'tsv' && delimiter === '\t')) return delimiter;
  throw new UsageError(
    `--delimiter ${JSON.stringify(given)}: the manifest's format is ${format}, and only csv has a delimiter to choose: leave one of the two away`,
  );
}
