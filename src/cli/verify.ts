import { verifyOutput } from '../run/receipt.js';
import type { OptionsOf } from './options.js';
import { count } from './text.js';

/**
 * `bulk-describe verify <manifest> <output>`.
 * @returns 0 when every row is described and none twice, 2 otherwise
 */
export async function verify(
  { json = false, ...options }: OptionsOf<'verify'>,
  manifest: string,
  output: string,
): Promise<number> {
  const recount = await verifyOutput({ ...options, manifest, output, input: process.stdin });
  const { rows, earlier, ...counts } = recount;
  const lines = json
    ? [JSON.stringify(recount)]
    : [
        `${count(rows)} rows in the manifest`,
        ...Object.entries(counts).map(([name, value]) => `${count(value).padStart(12)} ${name}`),
        ...(earlier === undefined ? [] : [`${count(earlier)} of those described are in earlier outputs`]),
      ];
  process.stdout.write(`${lines.join('\n')}\n`);
  return recount.described === recount.rows && recount.twice === 0 ? 0 : 2;
}
