import { readFileSync, rmSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { memoryOf } from '../child.js';
import { writeManifest } from '../manifest.js';
import { readJourneys, writeOutput } from '../outputs.js';
import type { Part } from '../part.js';
import { UNLIMITED, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { round } from '../table.js';

/** How long a run takes to go on with a large output, and how often it reads what. */
export const resumePart: Part = async ({ folder, full, say }) => {
  const sizes = full ? [10_000, 100_000, 1_000_000] : [10_000, 200_000];
  const rows: (string | number)[][] = [];
  for (const size of sizes) {
    const measured = await resume(folder, size);
    say(`${size} rows: first submit after ${measured.seconds} s`);
    rows.push([size, measured.seconds, measured.readOutput, measured.peakMb, '< 60 s']);
  }
  return [
    {
      title: 'Resume',
      note:
        'Seconds from the start of the process to the first submit of a run whose output holds all rows but the last ten. ' +
        'Bytes read until then, as a multiple of the size of the output and manifest together: the output is indexed once, the manifest ' +
        'counted for the preview and read by the producer, to know before anything is paid what it will cost.',
      head: ['rows in the output', 'seconds', 'bytes read, of all', 'coordinator RSS MB', 'target'],
      rows,
    },
  ];
};

async function resume(folder: string, size: number) {
  const manifest = await writeManifest(fileIn(folder, 'large.csv'), size + 10);
  const output = fileIn(folder, 'large.out.csv');
  await writeOutput(output, size);
  const bytes = statSync(manifest).size + statSync(output).size;
  const setting = await openSetting({});
  try {
    const startedAt = Date.now();
    const run = setting.run(manifest, output, [
      ...limitFlags({ ...UNLIMITED, rate: { count: 1, perMs: 1000 } }),
    ]);
    const read = await readUntilFirstSubmit(setting.api, run.pid);
    const memory = memoryOf(run.pid);
    receiptOf(await run.ended);
    const submits = (await readJourneys(output)).map(({ submittedAt }) => submittedAt);
    const first = submits.filter((at) => at >= startedAt).reduce((a, b) => Math.min(a, b), Infinity);
    return {
      seconds: round((first - startedAt) / 1000),
      readOutput: round(read / bytes),
      peakMb: Math.round(memory?.peakMb ?? NaN),
    };
  } finally {
    await setting.end();
    rmSync(output);
  }
}

/** @returns bytes that the process has read by then */
async function readUntilFirstSubmit(api: string, pid: number): Promise<number> {
  for (;;) {
    const stats: unknown = await (await fetch(new URL('/stats', api))).json();
    const io = /rchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1];
    if (!JSON.stringify(stats).includes('"submits":0')) return Number(io);
    await delay(20);
  }
}
