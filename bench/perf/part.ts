import type { Table } from './table.js';

/** What a part of the benchmarks is given. */
export interface PartContext {
  /** A folder for its files; removed afterwards. */
  readonly folder: string;
  /** The long version, as the figures in docs/performance.md were measured. */
  readonly full: boolean;
  /** One line to whoever waits. */
  readonly say: (line: string) => void;
  /** Where a picture goes that the part draws. */
  readonly picture: (name: string, svg: string) => void;
}

/** A part: what it measures, and its tables. */
export type Part = (context: PartContext) => Promise<readonly Table[]>;
