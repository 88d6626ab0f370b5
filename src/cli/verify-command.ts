import { verifyOutput } from '../run/verify-output.js';
import { UsageError } from '../shared/errors.js';
import { parseFlags } from './flags.js';
import { MANIFEST_FLAGS, OUTPUT_FLAGS, manifestOptionsOf } from './run-flags.js';
import { count } from './text.js';

const VERIFY_FLAGS = { ...MANIFEST_FLAGS, json: OUTPUT_FLAGS.json, help: OUTPUT_FLAGS.help } as const;

/**
 * `bulk-describe verify <manifest> <output>`.
 * @returns 0 when every row is described and none twice, 2 otherwise
 */
export async function verifyCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('verify', argv, VERIFY_FLAGS, env);
  const [manifest, output, ...rest] = flags.positionals;
  if (manifest === undefined || output === undefined || rest.length > 0) {
    throw new UsageError('verify needs a manifest and an output: bulk-describe verify <manifest> <output>');
  }
  const recount = await verifyOutput({ ...manifestOptionsOf(flags), manifest, output, input: process.stdin });
  if (flags.has('json')) {
    process.stdout.write(`${JSON.stringify(recount)}\n`);
  } else {
    const { rows, earlier, ...counts } = recount;
    process.stdout.write(`${count(rows)} rows in the manifest\n`);
    for (const [name, value] of Object.entries(counts)) {
      process.stdout.write(`${count(value).padStart(12)} ${name}\n`);
    }
    if (earlier !== undefined) {
      process.stdout.write(`${count(earlier)} of those described are in earlier outputs\n`);
    }
  }
  return recount.described === recount.rows && recount.twice === 0 ? 0 : 2;
}
