import { visible } from './visible.js';

/** A path as people name a file: its last part. */
export function nearName(path: string): string {
  return visible(path.split(/[/\\]/).pop() ?? path);
}
