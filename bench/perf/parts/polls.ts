import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { createPollSchedule } from '../../../src/worker/poll-schedule.js';
import { writeManifest } from '../manifest.js';
import { readJourneys } from '../outputs.js';
import type { Part, PartContext } from '../part.js';
import { fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
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
      const played = playSchedule(createPollSchedule(), {
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
  for (const load of loads) rows.push(await measure(context, load));
  return {
    title: 'Polls, for real',
    note: 'One home and two worker processes; latencies lognormal with sigma 0.35. Polls in a second by the API, looked at each second.',
    head: ['load', 'polls/image', 'late, median', 'late, p90', 'most polls/s', 'most in flight'],
    rows,
  };
}

async function measure(
  { folder, say }: PartContext,
  load: { images: number; rate: number; pollRate: number; inFlight: number; latencyMs: number },
): Promise<(string | number)[]> {
  const limits = {
    rate: { count: load.rate, perMs: 1000 },
    pollRate: { count: load.pollRate, perMs: 1000 },
    maxInFlight: load.inFlight,
  };
  const setting = await openSetting({ latencyMs: load.latencyMs, latencySpread: 0.35, seed: 7 });
  try {
    await setting.startWorkers(2, limits);
    const manifest = await writeManifest(fileIn(folder, 'polls.csv'), load.images);
    const output = fileIn(folder, `polls-${load.images}.csv`);
    const run = setting.run(manifest, output, ['--no-work', ...limitFlags(limits)]);
    const watched = watchPolls(setting.api, run.ended);
    const receipt = receiptOf(await run.ended);
    const { mostPerSecond, mostInFlight } = await watched;
    const journeys = await readJourneys(output);
    const late = journeys.map(
      ({ submittedAt, completedAt, noticedAt }) => (noticedAt - completedAt) / (completedAt - submittedAt),
    );
    const perImage = round(receipt.polls / load.images);
    const about = `${load.rate}/s, polls ${load.pollRate}/s, ${load.latencyMs / 1000} s`;
    say(`${about}: ${perImage} polls an image, late by ${round(percentile(late, 0.5) * 100)} %`);
    const percent = (share: number) => `${round(percentile(late, share) * 100)} %`;
    return [about, perImage, percent(0.5), percent(0.9), round(mostPerSecond), mostInFlight];
  } finally {
    await setting.end();
  }
}

/** The most polls a second, and images in flight, while the run goes on. */
async function watchPolls(api: string, ended: Promise<unknown>) {
  let isOver = false;
  void ended.finally(() => (isOver = true));
  let last = { polls: 0, at: performance.now() };
  let [mostPerSecond, mostInFlight] = [0, 0];
  while (!isOver) {
    await Promise.race([delay(1000), ended]);
    const stats = statsSchema.parse(await (await fetch(new URL('/stats', api))).json());
    const at = performance.now();
    if (at - last.at > 900) {
      mostPerSecond = Math.max(mostPerSecond, ((stats.polls - last.polls) / (at - last.at)) * 1000);
      last = { polls: stats.polls, at };
    }
    mostInFlight = Math.max(mostInFlight, stats.inFlight);
  }
  return { mostPerSecond, mostInFlight };
}
