import { readJourneys } from '../outputs.js';
import { CLI, startCommand } from '../child.js';
import { writeManifest } from '../manifest.js';
import type { Part } from '../part.js';
import { UNLIMITED, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { percentile, round } from '../table.js';

const TIMES = 9;

/** How long the program takes to say its help, and a run to submit its first image. */
export const startPart: Part = async ({ folder, say }) => {
  const node = await timesOf(() => startCommand('-e', ['0']).ended.then(({ seconds }) => seconds * 1000));
  const help = await timesOf(() => startCommand(CLI, ['--help']).ended.then(({ seconds }) => seconds * 1000));
  say(`--help: ${Math.round(percentile(help, 0.5))} ms`);
  const setting = await openSetting({});
  try {
    const manifest = await writeManifest(fileIn(folder, 'one.csv'), 1);
    let number = 0;
    const first = await timesOf(async () => {
      const output = fileIn(folder, `out-${number++}.csv`);
      const startedAt = Date.now();
      receiptOf(await setting.run(manifest, output, limitFlags(UNLIMITED)).ended);
      const [journey] = await readJourneys(output);
      return (journey?.submittedAt ?? NaN) - startedAt;
    });
    const row = (name: string, values: readonly number[], target: string) => [
      name,
      round(percentile(values, 0.5)),
      round(Math.min(...values)),
      target,
    ];
    return [
      {
        title: 'Start',
        note: `Milliseconds from the start of the process, ${TIMES} times each.`,
        head: ['what', 'median ms', 'fastest ms', 'target'],
        rows: [
          row('`node -e 0`', node, 'for comparison'),
          row('`bulk-describe --help`', help, '< 150'),
          row('`run` to its first submit, on Redis', first, '< 1500'),
        ],
      },
    ];
  } finally {
    await setting.end();
  }
};

async function timesOf(measure: () => Promise<number>): Promise<number[]> {
  const values: number[] = [];
  for (let time = 0; time < TIMES; time++) values.push(await measure());
  return values;
}
