import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { formatCsv } from '../../src/shared/csv.js';
import { OutputIndex } from '../../src/writer/output-index.js';
import { PROMPT_COLUMNS } from '../../src/shared/jobs.js';

/** A folder that is removed when the test has ended. */
export async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bulk-describe-writer-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** The hash of an image, as a run makes it: 16 bytes of sha256 as base64url, of the URL as it is resolved. */
export function imageOf(url: string): string {
  return createHash('sha256')
    .update(URL.canParse(url) ? new URL(url).href : url)
    .digest()
    .subarray(0, 16)
    .toString('base64url');
}

/** Takes every cell that looks like a URL for one. */
export function resolveUrl(raw: string): string | undefined {
  return raw.startsWith('https://') ? imageOf(raw) : undefined;
}

export const DESCRIBED_AT = '2024-05-06T07:08:09.010Z';

/** What an output's row has behind the manifest's cells. */
export function described(name: string, messageId = `message-${name}`): string[] {
  return [1, 2, 3, 4].map((prompt) => `${name} ${prompt}`).concat(messageId, DESCRIBED_AT);
}

/** A manifest of two columns, the second one the image. */
export const COLUMNS = ['id', 'url'];

/** How an output of that manifest is opened, with the ids as keys or without keys. */
export function outputOptions(path: string, keyed = false) {
  const index = new OutputIndex({ keyed });
  const keyColumn = keyed ? { index: 0, path: [] } : undefined;
  return {
    path,
    columns: COLUMNS,
    delimiter: ',',
    urlColumn: { index: 1, path: [] },
    keyColumn,
    index,
    answerColumns: PROMPT_COLUMNS,
  };
}

/** One line of a file of ours. */
export function formatRecord(cells: readonly string[], delimiter: string): string {
  return formatCsv([cells], delimiter);
}
