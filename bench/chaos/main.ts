import { fileURLToPath } from 'node:url';
import { inspect, parseArgs } from 'node:util';
import { redisAvailable } from '../../test/helpers/redis.js';
import { abandonAll } from './abandon.js';
import type { QueueKind } from './plan.js';
import type { RoundResult } from './round.js';
import { runRounds } from './rounds.js';
import { tableOf } from './table.js';

const HELP = `npm run chaos -- [--rounds <n>] [--seed <n>] [--queue redis|embedded|both] [--at-once <n>] [--only <round>]

Runs manifests against a simulator while everything is killed at random, and counts what became of them.
  --rounds <n>     rounds (10)
  --seed <n>       start of all random decisions; by default another one each time
  --queue <which>  redis (needs redis-server), embedded, or both in turn (both)
  --at-once <n>    rounds at a time (2)
  --only <round>   only the round of this number, to look at it again
`;

const CLI = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function readNumber(name: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`--${name} ${text}: expected a whole number`);
  return Number(text);
}

function readQueues(text: string): QueueKind[] {
  if (text === 'both') return ['redis', 'embedded'];
  if (text === 'redis' || text === 'embedded') return [text];
  throw new Error(`--queue ${text}: expected redis, embedded or both`);
}

function describeRound(
  number: number,
  { plan, rows, payments, kills, broken, seconds, folder }: RoundResult,
): string {
  const about = `round ${number} (${plan.queue}): ${plan.rows.length} rows, ${kills} kills, ${Math.round(seconds)} s`;
  const counts = `${rows.described} described, ${rows.failed} failed, ${payments.paid} paid`;
  const twice = `${payments.paidTwice} paid twice, ${payments.counted} counted`;
  if (broken.length === 0) return `${about}: ${counts}, ${twice}`;
  return [`${about}: BROKEN, see ${folder}`, ...broken.map((line) => `  ${line}`)].join('\n');
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '10' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      queue: { type: 'string', default: 'both' },
      'at-once': { type: 'string', default: '2' },
      only: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    say(HELP);
    return 0;
  }
  const queues = readQueues(values.queue);
  if (queues.includes('redis') && !redisAvailable)
    throw new Error('no redis-server here: try --queue embedded');
  const seed = readNumber('seed', values.seed);
  say(`seed ${seed}`);
  const results = await runRounds({
    rounds: readNumber('rounds', values.rounds),
    seed,
    queues,
    only: values.only === undefined ? undefined : readNumber('only', values.only),
    atOnce: Math.max(1, readNumber('at-once', values['at-once'])),
    cli: CLI,
    onRound: (number, result) => {
      say(describeRound(number, result));
      if (result.broken.length > 0) say(`  again: --seed ${seed} --queue ${values.queue} --only ${number}`);
    },
  });
  say(`\n${tableOf(results)}`);
  return results.some(({ broken }) => broken.length > 0) ? 1 : 0;
}

process.on('exit', abandonAll);
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => process.exit(130));
// Servers that are on their way out hold no event loop.
const alive = setInterval(() => undefined, 60_000);
try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`chaos: ${inspect(error)}\n`);
  // The other rounds that are under way end as well.
  process.exit(1);
}
clearInterval(alive);
