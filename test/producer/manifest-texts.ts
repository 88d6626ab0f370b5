import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll } from 'vitest';
import {
  type Manifest,
  type ManifestOptions,
  type ManifestRecord,
  openManifest,
} from '../../src/producer/manifest.js';

/** A folder for a test file's manifests, removed afterwards. */
export function useManifestFolder(): {
  write(name: string, content: string | Buffer): Promise<string>;
  path(name: string): string;
} {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bulk-describe-manifest-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const path = (name: string) => join(folder, name);
  return {
    path,
    async write(name, content) {
      await writeFile(path(name), content);
      return path(name);
    },
  };
}

/** A stream that delivers the bytes in pieces of these sizes, over and over. */
export function streamOf(content: string | Buffer, sizes: readonly number[] = [64 * 1024]): Readable {
  const bytes = Buffer.from(content);
  const pieces: Buffer[] = [];
  for (let start = 0, index = 0; start < bytes.length; index++) {
    const size = sizes[index % sizes.length] ?? 1;
    pieces.push(bytes.subarray(start, start + size));
    start += size;
  }
  return Readable.from(pieces);
}

/** Opens a manifest that comes from stdin. */
export function openText(
  content: string | Buffer,
  options: Omit<ManifestOptions, 'path' | 'input'> & { readonly sizes?: readonly number[] } = {},
): Promise<Manifest> {
  const { sizes, ...rest } = options;
  return openManifest({ format: 'csv', ...rest, path: '-', input: streamOf(content, sizes) });
}

export interface ReadResult {
  readonly records: ManifestRecord[];
  readonly error: unknown;
}

/** Reads what can be read, and the error that ends it, if one does. */
export async function readAll(
  manifest: Pick<Manifest, 'batches'>,
  signal?: AbortSignal,
): Promise<ReadResult> {
  const records: ManifestRecord[] = [];
  try {
    for await (const batch of manifest.batches(signal)) records.push(...batch);
  } catch (error) {
    return { records, error };
  }
  return { records, error: undefined };
}

/** Opens and reads a manifest to its end. */
export async function readText(
  ...args: Parameters<typeof openText>
): Promise<ReadResult & { manifest: Manifest }> {
  const manifest = await openText(...args);
  return { manifest, ...(await readAll(manifest)) };
}

export function cellsOf(records: readonly ManifestRecord[]): (readonly string[])[] {
  return records.map(({ cells }) => cells);
}

export function problemsOf(records: readonly ManifestRecord[]): (string | undefined)[] {
  return records.map(({ problem }) => problem);
}
