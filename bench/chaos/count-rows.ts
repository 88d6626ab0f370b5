import { existsSync, readFileSync } from 'node:fs';
import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { parseMessageId, hashUrl } from '../../src/simulator/messages.js';
import type { PlannedRow } from './plan-rows.js';

const cells = { number: z.string(), key: z.string(), title: z.string(), image: z.string() };
const outputSchema = z.array(z.object({ ...cells, prompt_1: z.string().min(1), message_id: z.string() }));
const failuresSchema = z.array(z.object({ ...cells, error_code: z.string() }));

export interface RowCounts {
  readonly described: number;
  readonly failed: number;
  /** Rows that are neither described nor failed with a code that they deserve. */
  readonly lost: readonly string[];
  /** Rows that are there more than once, in the output and the failures file together. */
  readonly twice: readonly string[];
  /** Rows whose cells or prompts are not theirs. */
  readonly wrong: readonly string[];
}

/**
 * Counts what has become of each planned row, from the files, with none of the product's own code to read them.
 * @param wasAccepted whether the API has accepted a submit of that URL
 */
export function countRows(
  rows: readonly PlannedRow[],
  files: { readonly output: string; readonly failures: string },
  wasAccepted: (url: string) => boolean,
): RowCounts {
  const described = outputSchema.parse(readRecords(files.output));
  const failed = failuresSchema.parse(readRecords(files.failures));
  const planned = new Map(rows.map((row) => [row.number, row]));
  const times = new Map<string, number>();
  for (const { number } of [...described, ...failed]) times.set(number, (times.get(number) ?? 0) + 1);

  const good = new Set<string>();
  const wrong: string[] = [];
  for (const record of described) {
    const row = planned.get(record.number);
    if (row?.image === undefined || !isSame(row, record) || !isFor(row.image, record.message_id)) {
      wrong.push(record.number);
    } else good.add(record.number);
  }
  for (const record of failed) {
    const row = planned.get(record.number);
    if (row === undefined || !isSame(row, record)) wrong.push(record.number);
    else if (deserves(row, record.error_code, wasAccepted)) good.add(record.number);
  }
  return {
    described: described.length,
    failed: failed.length,
    lost: rows.filter(({ number }) => !good.has(number)).map(({ number }) => number),
    twice: [...times].filter(([, count]) => count > 1).map(([number]) => number),
    wrong,
  };
}

function readRecords(path: string): unknown[] {
  return existsSync(path) ? parse(readFileSync(path), { columns: true }) : [];
}

function isSame(
  row: PlannedRow,
  record: z.infer<typeof failuresSchema>[number] | z.infer<typeof outputSchema>[number],
) {
  return row.key === record.key && row.title === record.title && row.url === record.image;
}

/** The simulator's message ids say which image they are for. */
function isFor(image: string, messageId: string): boolean {
  return parseMessageId(messageId)?.urlHash === hashUrl(image);
}

/** Only what the manifest or the API's refusal explains is left when everything works again. */
function deserves(row: PlannedRow, code: string, wasAccepted: (url: string) => boolean): boolean {
  if (row.problem !== undefined || row.image === undefined) return code === row.problem;
  return code === 'rejected' && !wasAccepted(row.image);
}
