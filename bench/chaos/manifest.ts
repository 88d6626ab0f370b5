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
