import { type Rate, formatRate, perSecond } from '../../../src/shared/limits.js';
import { writeManifest } from '../manifest.js';
import { readJourneys } from '../outputs.js';
import type { Part, PartContext } from '../part.js';
import { fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { type Table, round } from '../table.js';

const LATENCY_MS = 2000;
/** How long the processes take until they are at their pace: it is told apart. */
const START_MS = 2000;

interface Case {
  readonly rate: Rate;
  readonly seconds: number;
}

/** How much of the allowed rate is used, and whether it is ever exceeded: at what accounts of today have. */
export const slowRatePart: Part = (context) =>
  measureRates(context, [
    { rate: { count: 1, perMs: 3000 }, seconds: context.full ? 180 : 24 },
    { rate: { count: 20, perMs: 60_000 }, seconds: context.full ? 240 : 24 },
  ]);

/** The same at rates that keep a machine busy. */
export const ratePart: Part = (context) =>
  measureRates(
    context,
    [10, 50, 200].map((count) => ({ rate: { count, perMs: 1000 }, seconds: context.full ? 60 : 12 })),
  );

async function measureRates({ folder, say }: PartContext, cases: readonly Case[]): Promise<Table[]> {
  const rows: (string | number)[][] = [];
  let isFirst = true;
  for (const { rate, seconds } of cases) {
    for (const workers of [1, 2, 4]) {
      const measured = await useRate(folder, rate, seconds, workers);
      isFirst &&= measured.isFirst;
      say(
        `${formatRate(rate)}, ${workers} worker(s): ${measured.usedPercent} % used, at most ${measured.peak} in a window, ${measured.fuller} above it`,
      );
      rows.push([
        formatRate(rate),
        workers,
        measured.images,
        `${measured.usedPercent} %`,
        perSecond(rate) * (START_MS / 1000) < 10 ? '' : `${measured.startPercent} %`,
        `${measured.peak} of ${rate.count}`,
        `${measured.peakPercent} %`,
        measured.fuller,
        measured.timeRatio,
      ]);
    }
  }
  return [
    {
      title: 'Rate used, and total time',
      note:
        'Used: submits from two seconds after the first to the last, of what the rate allows in that time (at least 97 %); of the start: in those two ' +
        'seconds. Most: submits in any sliding window of the rate’s unit (at most 105 %). Time: from the first submit to the last outcome, as a multiple of images / rate + latency ' +
        `(at most 1.03; latency ${LATENCY_MS / 1000} s). By the clock of the API, which has a processor whenever it wants one${isFirst ? '' : ' (not here: that needs root)'}; ` +
        'each worker is a process.',
      head: [
        'rate',
        'workers',
        'images',
        'used',
        'of the start',
        'most in a window',
        'of the rate',
        'windows above it',
        'time',
      ],
      rows,
    },
  ];
}

async function useRate(folder: string, rate: Rate, seconds: number, workers: number) {
  const images = Math.max(6, Math.round(perSecond(rate) * seconds));
  const limits = {
    rate,
    pollRate: { count: 1000, perMs: 1000 },
    maxInFlight: Math.ceil(perSecond(rate) * (LATENCY_MS / 1000) * 2) + 20,
  };
  const setting = await openSetting({ latencyMs: LATENCY_MS, isFirst: true });
  try {
    await setting.startWorkers(workers, limits);
    const manifest = await writeManifest(fileIn(folder, 'rate.csv'), images);
    const output = fileIn(folder, `rate-${images}-${workers}.csv`);
    receiptOf(await setting.run(manifest, output, ['--no-work', ...limitFlags(limits)]).ended);
    const journeys = await readJourneys(output);
    const submits = journeys.map(({ submittedAt }) => submittedAt).sort((a, b) => a - b);
    const [first = NaN] = submits;
    const isStarting = (time: number) => time < first + START_MS;
    const ended = Math.max(...journeys.map(({ noticedAt }) => noticedAt));
    const perMs = rate.count / rate.perMs;
    const windows = countWindows(submits, rate.perMs);
    const peak = Math.max(...windows);
    return {
      images,
      isFirst: setting.isFirst,
      usedPercent: round((perMsOf(submits.filter((time) => !isStarting(time))) * 100) / perMs, 4),
      startPercent: round((submits.filter(isStarting).length * 100) / (perMs * START_MS), 3),
      peak,
      peakPercent: round((peak / rate.count) * 100),
      fuller: windows.filter((count) => count > rate.count).length,
      timeRatio: round((ended - first) / (images / perMs + LATENCY_MS)),
    };
  } finally {
    await setting.end();
  }
}

/** Of sorted times. */
function perMsOf(times: readonly number[]): number {
  return (times.length - 1) / ((times.at(-1) ?? NaN) - (times[0] ?? NaN));
}

/** How many of the sorted times lie within the `ms` milliseconds up to each of them, the beginning not included. */
function countWindows(times: readonly number[], ms: number): number[] {
  let from = 0;
  return times.map((time, to) => {
    while (time - (times[from] ?? time) >= ms) from++;
    return to - from + 1;
  });
}
