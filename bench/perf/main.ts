import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { inspect, parseArgs } from 'node:util';
import { abandonAll } from '../chaos/abandon.js';
import { describeMachine, machineLine } from './machine.js';
import type { Part } from './part.js';
import { memoryPart } from './parts/memory.js';
import { overheadPart } from './parts/overhead.js';
import { pollsPart } from './parts/polls.js';
import { ratePart, slowRatePart } from './parts/rate.js';
import { resumePart } from './parts/resume.js';
import { scalePart } from './parts/scale.js';
import { startPart } from './parts/start.js';
import { webhooksPart } from './parts/webhooks.js';
import { type Table, markdownOf } from './table.js';

const PARTS: Readonly<Record<string, Part>> = {
  start: startPart,
  resume: resumePart,
  polls: pollsPart,
  overhead: overheadPart,
  scale: scalePart,
  rate: ratePart,
  'slow-rate': slowRatePart,
  memory: memoryPart,
  webhooks: webhooksPart,
};

const HELP = `npm run bench -- [<part> ...] [--full] [--out <folder>]

Measures the program against a simulator in another process and a Redis of its own, seeds fixed.
Parts (all of them by default): ${Object.keys(PARTS).join(', ')}
  --full          the sizes that docs/performance.md tells of (an hour and more); otherwise minutes
  --out <folder>  where results.json, results.md and the pictures go (bench-results)
With BENCH_PROFILE=<folder> every process leaves a CPU profile there.
`;

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      full: { type: 'boolean', default: false },
      out: { type: 'string', default: 'bench-results' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    say(HELP);
    return;
  }
  const names = positionals.length === 0 ? Object.keys(PARTS) : positionals;
  const out = resolve(values.out);
  mkdirSync(out, { recursive: true });
  const machine = describeMachine();
  say(machineLine(machine));
  const tables: Table[] = [];
  for (const name of names) {
    const part = PARTS[name];
    if (part === undefined) throw new Error(`no part ${name}: expected ${Object.keys(PARTS).join(', ')}`);
    tables.push(...(await runPart(name, part, values.full, out)));
  }
  const version = values.full ? 'full' : 'quick';
  writeFileSync(join(out, 'results.json'), `${JSON.stringify({ machine, version, tables }, null, 2)}\n`);
  const text = [`${machineLine(machine)} (${version} version)`, ...tables.map(markdownOf)].join('\n\n');
  writeFileSync(join(out, 'results.md'), `${text}\n`);
  process.stdout.write(`${text}\n`);
}

async function runPart(name: string, part: Part, full: boolean, out: string): Promise<readonly Table[]> {
  say(`\n${name}`);
  const folder = mkdtempSync(join(tmpdir(), `bulk-describe-${name}-`));
  try {
    return await part({
      folder,
      full,
      say: (line) => say(`  ${line}`),
      picture: (file, svg) => writeFileSync(join(out, file), svg),
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

process.on('exit', abandonAll);
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => process.exit(130));
// Servers that are on their way out hold no event loop.
const alive = setInterval(() => undefined, 60_000);
try {
  await main();
} catch (error) {
  say(`bench: ${inspect(error)}`);
  process.exitCode = 1;
}
clearInterval(alive);
