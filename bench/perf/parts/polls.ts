import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { PollSchedule } from '../../../src/worker/poll-schedule.js';
import { writeManifest } from '../manifest.js';
import { readJourneys } from '../outputs.js';
import type { Part, PartContext } from '../part.js';
import { type Setting, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { type Table, percentile, round } from '../table.js';
import { playSchedule } from '../virtual-polls.js';

const statsSchema = z.looseObject({ polls: z.number(), inFlight: z.number() });

/** How many polls an image takes, and how soon its completion is noticed. */
export const pollsPart: Part = async (context) => [virtualTable(), await realTable(context)];

function virtualTable(): Table {
  const rows = [0.2, 0.35, 0.5].flatMap((spread) =>
    [
      { rate: 1 / 3, inFlight: 20, pollRate: 10 },
      { rate: 10, inFlight: 400, pollRate: 100 },
      { rate: 80, inFlight: 2000, pollRate: 50 },
    ].map((load) => {
      const images = load.inFlight === 20 ? 500 : 6000;
      const played = playSchedule(new PollSchedule(), {
        ...load,
        images,
        learning: images / 10,
        medianMs: 25_000,
        spread,
        seed: 7,
      });
      return [
        spread,
        `${round(load.rate)}/s, ${load.inFlight} in flight, polls ${load.pollRate}/s`,
        round(played.pollsPerImage),
        `${round(percentile(played.lateShares, 0.5) * 100)} %`,
        `${round(percentile(played.lateShares, 0.9) * 100)} %`,
        played.mostPollsInASecond,
        round(played.longestWaitMs / 1000),
      ];
    }),
  );
  return {
    title: 'Polls, in virtual time',
    note:
      'The schedule alone, after it has learned: latencies lognormal with a median of 25 s, between 10 and 60 s. Late: from completion to the poll that notices, as a share of the latency ' +
      '(median at most 10 %, with at most 3 polls an image, where the poll rate allows that). Wait: the longest that a due poll waited for the poll rate.',
    head: [
      'sigma',
      'load',
      'polls/image',
      'late, median',
      'late, p90',
      'most polls in 1 s',
      'longest wait s',
    ],
    rows,
  };
}

async function realTable(context: PartContext): Promise<Table> {
  const loads = context.full
    ? [
        { images: 400, rate: 10, pollRate: 50, inFlight: 600, latencyMs: 25_000 },
        { images: 4000, rate: 100, pollRate: 100, inFlight: 2000, latencyMs: 25_000 },
      ]
    : [{ images: 200, rate: 20, pollRate: 50, inFlight: 200, latencyMs: 4000 }];
  const rows: (string | number)[][] = [];
  for (const load of loads) rows.push(...(await measure(context, load)));
  return {
    title: 'Polls, for real',
    note:
      'One coordinator and two worker processes; latencies lognormal with sigma 0.35. The second run has new workers, which begin with what the first ones have learned. ' +
      'Polls in a second by the API, looked at each second.',
    head: ['load', 'polls/image', 'late, median', 'late, p90', 'most polls/s', 'most in flight'],
    rows,
  };
}

interface PollLoad {
  readonly images: number;
  readonly rate: number;
  readonly pollRate: number;
  readonly inFlight: number;
  readonly latencyMs: number;
}

async function measure(context: PartContext, load: PollLoad): Promise<(string | number)[][]> {
  const setting = await openSetting({ latencyMs: load.latencyMs, latencySpread: 0.35, seed: 7 });
  try {
    const manifest = await writeManifest(fileIn(context.folder, 'polls.csv'), load.images);
    const first = await measureRun(context, setting, load, manifest, 'first run');
    return [first, await measureRun(context, setting, load, manifest, 'second run')];
  } finally {
    await setting.end();
  }
}

async function measureRun(
  { folder, say }: PartContext,
  setting: Setting,
  load: PollLoad,
  manifest: string,
  which: string,
): Promise<(string | number)[]> {
  const limits = {
    rate: { count: load.rate, perMs: 1000 },
    pollRate: { count: load.pollRate, perMs: 1000 },
    maxInFlight: load.inFlight,
  };
  const workers = await setting.startWorkers(2, limits);
  const output = fileIn(folder, `polls-${load.images}-${which}.csv`);
  const run = setting.run(manifest, output, ['--no-work', ...limitFlags(limits)]);
  const watched = watchPolls(setting.api, run.ended);
  const receipt = receiptOf(await run.ended);
  const { mostPerSecond, mostInFlight } = await watched;
  for (const worker of workers) await worker.stop();
  const journeys = await readJourneys(output);
  const late = journeys.map(
    ({ submittedAt, completedAt, noticedAt }) => (noticedAt - completedAt) / (completedAt - submittedAt),
  );
  const perImage = round(receipt.polls / load.images);
  const about = `${load.images} at ${load.rate}/s, polls ${load.pollRate}/s, ${load.latencyMs / 1000} s, ${which}`;
  say(`${about}: ${perImage} polls an image, late by ${round(percentile(late, 0.5) * 100)} %`);
  const percent = (share: number) => `${round(percentile(late, share) * 100)} %`;
  return [about, perImage, percent(0.5), percent(0.9), round(mostPerSecond), mostInFlight];
}

/** The most polls a second, and images in flight, while the run goes on. */
async function watchPolls(api: string, ended: Promise<unknown>) {
  let isOver = false;
  void ended.finally(() => (isOver = true));
  const read = async () => statsSchema.parse(await (await fetch(new URL('/stats', api))).json());
  let last = { polls: (await read()).polls, at: performance.now() };
  let [mostPerSecond, mostInFlight] = [0, 0];
  while (!isOver) {
    await Promise.race([delay(1000), ended]);
    const stats = await read();
    const at = performance.now();
    if (at - last.at > 900) {
      mostPerSecond = Math.max(mostPerSecond, ((stats.polls - last.polls) / (at - last.at)) * 1000);
      last = { polls: stats.polls, at };
    }
    mostInFlight = Math.max(mostInFlight, stats.inFlight);
  }
  return { mostPerSecond, mostInFlight };
}
