import { statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { memoryOf } from '../child.js';
import { writeManifest } from '../manifest.js';
import type { Part, PartContext } from '../part.js';
import { type Series, linePlot } from '../plot.js';
import { openClient, readRedis } from '../redis-info.js';
import { UNLIMITED, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';

const SAMPLE_MS = 500;

interface Sample {
  readonly rows: number;
  readonly homeMb: number;
  readonly workerMb: number;
  readonly redisMb: number;
}

/** What a home, a worker and Redis hold while many rows go through. */
export const memoryPart: Part = async (context) => {
  const rows = context.full ? 1_000_000 : 40_000;
  const each = await measure(context, 'an image for each row', rows, rows);
  const shared = await measure(context, 'one image for all rows', rows, 1);
  const series = (samples: readonly Sample[], about: string): Series[] => [
    { name: `home${about}`, points: samples.map(({ rows: x, homeMb: y }) => ({ x, y })) },
    { name: `worker${about}`, points: samples.map(({ rows: x, workerMb: y }) => ({ x, y })) },
    { name: `Redis${about}`, points: samples.map(({ rows: x, redisMb: y }) => ({ x, y })) },
  ];
  context.picture(
    'memory.svg',
    linePlot({
      title: `Memory over ${rows} rows, an image for each`,
      x: 'rows written',
      y: 'MB',
      series: series(each.samples, ''),
    }),
  );
  return [
    {
      title: 'Memory',
      note:
        `MB at their highest over ${rows} rows (resident; Redis: used_memory). Beyond the index of done rows, at most 32 bytes each, they are to be flat from ` +
        '10,000 rows on. Targets: home and worker 200, Redis 50.',
      head: ['what', 'rows/s', 'home', 'home at 10,000 rows', 'worker', 'Redis'],
      rows: [each.row, shared.row],
    },
  ];
};

async function measure({ folder, say }: PartContext, what: string, rows: number, images: number) {
  const setting = await openSetting({});
  const client = openClient(setting.queue);
  try {
    const [worker] = await setting.startWorkers(1, UNLIMITED);
    const manifest = await writeManifest(fileIn(folder, `memory-${images}.csv`), rows, images);
    const output = fileIn(folder, `memory-${images}.out.csv`);
    const run = setting.run(manifest, output, ['--no-work', ...limitFlags(UNLIMITED)]);
    let isOver = false;
    const ended = run.ended.finally(() => (isOver = true));
    const samples: { bytes: number; homeMb: number; workerMb: number; redisMb: number }[] = [];
    let homePeak = 0;
    while (!isOver) {
      await Promise.race([delay(SAMPLE_MS), ended]);
      const home = memoryOf(run.pid);
      if (home === undefined || home.peakMb === 0) break;
      homePeak = Math.max(homePeak, home.peakMb);
      const { usedMb } = await readRedis(client);
      const workerMb = memoryOf(worker?.pid ?? 0)?.nowMb ?? NaN;
      samples.push({ bytes: sizeOf(output), homeMb: home.nowMb, workerMb, redisMb: usedMb });
    }
    const { seconds } = receiptOf(await ended);
    const perRow = sizeOf(output) / rows;
    const placed = samples.map(({ bytes, ...mb }) => ({ rows: Math.round(bytes / perRow), ...mb }));
    const atTenThousand = placed.find((sample) => sample.rows >= 10_000)?.homeMb ?? NaN;
    const workerPeak = memoryOf(worker?.pid ?? 0)?.peakMb ?? NaN;
    const redisPeak = (await readRedis(client)).peakMb;
    say(
      `${what}: home ${Math.round(homePeak)}, worker ${Math.round(workerPeak)}, Redis ${Math.round(redisPeak)} MB`,
    );
    const cells = [rows / seconds, homePeak, atTenThousand, workerPeak, redisPeak];
    return { row: [what, ...cells.map(Math.round)], samples: placed };
  } finally {
    client.disconnect();
    await setting.end();
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
