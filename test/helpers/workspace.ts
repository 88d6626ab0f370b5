import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { onTestFinished } from 'vitest';
import { z } from 'zod';

const recordsSchema = z.array(z.record(z.string(), z.string()));

/** A temporary folder of one test. */
export class Workspace {
  private constructor(readonly path: string) {}

  static async create(): Promise<Workspace> {
    return new Workspace(await mkdtemp(join(tmpdir(), 'bulk-describe-test-')));
  }

  /** Removed when the test has ended. @param manifest `m.csv` */
  static async forTest(manifest: string): Promise<Workspace> {
    const workspace = await Workspace.create();
    onTestFinished(() => workspace.remove());
    await workspace.write('m.csv', manifest);
    return workspace;
  }

  at(name: string): string {
    return join(this.path, name);
  }

  async write(name: string, content: string | Buffer): Promise<string> {
    await writeFile(this.at(name), content);
    return this.at(name);
  }

  read(name: string): Promise<string> {
    return readFile(this.at(name), 'utf8');
  }

  /** The records of a CSV file, read strictly by another parser than the one that is tested. */
  async records(name: string): Promise<Record<string, string>[]> {
    return recordsSchema.parse(parse(await readFile(this.at(name)), { columns: true }));
  }

  async files(): Promise<string[]> {
    return (await readdir(this.path)).sort();
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** A manifest with an id column and `count` images. */
export function manifestOf(count: number, host = 'http://images.test'): string {
  const rows = Array.from({ length: count }, (_, index) => `${index + 1},${host}/${index + 1}.jpg\n`);
  return `id,image\n${rows.join('')}`;
}
