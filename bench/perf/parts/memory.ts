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
  readonly coordinatorMb: number;
  readonly workerMb: number;
  readonly redisMb: number;
}

/** What a coordinator, a worker and Redis hold while many rows go through. */
export const memoryPart: Part = async (context) => {
  const rows = context.full ? 1_000_000 : 40_000;
  const each = await measure(context, 'an image for each row', rows, rows);
  const shared = await measure(context, 'one image for all rows', rows, 1);
  const series = (samples: readonly Sample[], about: string): Series[] => [
    { name: `coordinator${about}`, points: samples.map(({ rows: x, coordinatorMb: y }) => ({ x, y })) },
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
        '10,000 rows on. Targets: coordinator 350, worker 200, Redis 50.',
      head: ['what', 'rows/s', 'coordinator', 'coordinator at 10,000 rows', 'worker', 'Redis'],
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
    const samples: { bytes: number; coordinatorMb: number; workerMb: number; redisMb: number }[] = [];
    let coordinatorPeak = 0;
    while (!isOver) {
      await Promise.race([delay(SAMPLE_MS), ended]);
      const coordinator = memoryOf(run.pid);
      if (coordinator === undefined || coordinator.peakMb === 0) break;
      coordinatorPeak = Math.max(coordinatorPeak, coordinator.peakMb);
      const { usedMb } = await readRedis(client);
      const workerMb = memoryOf(worker?.pid ?? 0)?.nowMb ?? NaN;
      samples.push({ bytes: sizeOf(output), coordinatorMb: coordinator.nowMb, workerMb, redisMb: usedMb });
    }
    const { seconds } = receiptOf(await ended);
    const perRow = sizeOf(output) / rows;
    const placed = samples.map(({ bytes, ...mb }) => ({ rows: Math.round(bytes / perRow), ...mb }));
    const atTenThousand = placed.find((sample) => sample.rows >= 10_000)?.coordinatorMb ?? NaN;
    const workerPeak = memoryOf(worker?.pid ?? 0)?.peakMb ?? NaN;
    const redisPeak = (await readRedis(client)).peakMb;
    say(
      `${what}: coordinator ${Math.round(coordinatorPeak)}, worker ${Math.round(workerPeak)}, Redis ${Math.round(redisPeak)} MB`,
    );
    const cells = [rows / seconds, coordinatorPeak, atTenThousand, workerPeak, redisPeak];
    return { row: [what, ...cells.map(Math.round)], samples: placed };
  } finally {
    client.disconnect();
    await setting.end();
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
