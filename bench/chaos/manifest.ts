import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { stringify } from 'csv-stringify/sync';
import type { RoundPlan } from './plan.js';

/** Writes a round's manifest. @returns its path */
export function writeManifest(folder: string, plan: RoundPlan): string {
  const records = plan.rows.map(({ number, key, title, url }) => ({ number, key, title, image: url }));
  const text = stringify(records, { header: true, columns: ['number', 'key', 'title', 'image'] });
  const path = join(folder, plan.gzip ? 'manifest.csv.gz' : 'manifest.csv');
  writeFileSync(path, plan.gzip ? gzipSync(text) : text);
  return path;
}

/** Writes the manifest of the run that is abandoned: images of its own host. @returns its path */
export function writeAbandonedManifest(folder: string, rows: number): string {
  const records = Array.from({ length: rows }, (_, index) => [
    `${index + 1}`,
    `${ABANDONED}${index + 1}.jpg`,
  ]);
  const path = join(folder, 'abandoned.csv');
  writeFileSync(path, stringify([['number', 'image'], ...records]));
  return path;
}

/** What its images' URLs begin with. */
export const ABANDONED = 'http://abandoned.test/';
