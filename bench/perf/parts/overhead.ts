import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLI, startCommand, startHelper } from '../child.js';
import { writeManifest } from '../manifest.js';
import type { Part, PartContext } from '../part.js';
import { measureBullmq } from '../peers/bullmq.js';
import { type ProcessorTime, processorTime } from '../processor-time.js';
import { openClient } from '../redis-info.js';
import { type Setting, UNLIMITED, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { type Table, round } from '../table.js';

const EMBEDDED_LIMITS = { ...UNLIMITED, maxInFlight: 50 };

/** What it costs beside the API: an API that answers at once, and no limits. */
export const overheadPart: Part = async (context) => {
  const { folder, full, say } = context;
  const images = full ? 30_000 : 6000;
  const rounds = full ? 3 : 1;
  const best = { ours: 0, process: 0, both: 0, single: 0, script: 0 };
  let cpu: ProcessorTime = {};
  for (let round = 0; round < rounds; round++) {
    const setting = await openSetting({});
    try {
      const keep = (name: keyof typeof best, perSecond: number) => {
        say(`${name}: ${Math.round(perSecond)}/s`);
        best[name] = Math.max(best[name], perSecond);
      };
      const manifest = await writeManifest(fileIn(folder, 'overhead.csv'), images);
      keep('process', await measureBullmq(setting.queue, images, 'before'));
      keep('both', await measureBullmq(setting.queue, images, 'meanwhile'));
      keep('single', await measureBullmq(setting.queue, images, 'before', 1));
      const ours = await measureOurs(setting, manifest, fileIn(folder, `ours-${round}.csv`), images);
      if (ours.perSecond > best.ours) cpu = ours.cpu;
      keep('ours', ours.perSecond);
      keep('script', await measureScript(setting, manifest, fileIn(folder, `script-${round}.csv`), images));
    } finally {
      await setting.end();
    }
  }
  const row = (name: string, perSecond: number, keeps: string) => [
    name,
    Math.round(perSecond),
    round(perSecond / best.process),
    round(perSecond / best.both),
    keeps,
  ];
  return [
    {
      title: 'Overhead',
      note:
        `${images} images, an API that answers at once, no limits; the best of ${rounds}. One coordinator and one worker process, API and Redis each in their own. ` +
        'Target: 0.45 of bare BullMQ.',
      head: [
        'what',
        'images/s',
        'of BullMQ processing',
        'of BullMQ adding and processing',
        'survives a crash',
      ],
      rows: [
        row('bulk-describe on Redis, manifest to fsynced row', best.ours, 'yes'),
        row('bare BullMQ, empty jobs that are there already', best.process, 'the jobs'),
        row('bare BullMQ, empty jobs added meanwhile by another process', best.both, 'the jobs'),
        row('bare BullMQ, empty jobs that are there already, one at a time', best.single, 'the jobs'),
        row('a script with p-limit, in memory', best.script, 'no'),
      ],
    },
    cpuTable(cpu),
    await embeddedTable(context),
  ];
};

function cpuTable(cpu: ProcessorTime): Table {
  const total = Object.values(cpu).reduce((sum, ms) => sum + ms, 0);
  return {
    title: 'Overhead, by process',
    note: 'Milliseconds of processor time an image, in the best of these runs.',
    head: [...Object.keys(cpu), 'all'],
    rows: [[...Object.values(cpu), total].map((ms) => round(ms))],
  };
}

async function measureOurs(setting: Setting, manifest: string, output: string, images: number) {
  const workers = await setting.startWorkers(1, UNLIMITED);
  const client = openClient(setting.queue);
  try {
    const run = setting.run(manifest, output, ['--no-work', ...limitFlags(UNLIMITED)]);
    const cpu = await processorTime(run, images, { workers, apiPid: setting.apiPid, redis: client });
    return { perSecond: images / receiptOf(await run.ended).seconds, cpu };
  } finally {
    client.disconnect();
  }
}

async function measureScript(
  setting: Setting,
  manifest: string,
  output: string,
  images: number,
): Promise<number> {
  const script = fileURLToPath(new URL('../peers/p-limit-script.js', import.meta.url));
  const { code, stdout, stderr } = await startCommand(script, [manifest, output, setting.api]).ended;
  if (code !== 0) throw new Error(`the script failed: ${stderr}`);
  return images / Number(stdout);
}

async function embeddedTable({ folder, full, say }: PartContext): Promise<Table> {
  const images = full ? 6000 : 600;
  const api = await startHelper('api.js', {});
  try {
    const queue = `embedded:${mkdtempSync(join(folder, 'queue-'))}`;
    const lag = fileIn(folder, 'lag');
    const probe = new URL(`../lag-probe.js?to=${encodeURIComponent(lag)}`, import.meta.url).href;
    const run = async (rows: number) => {
      const manifest = await writeManifest(fileIn(folder, `embedded-${rows}.csv`), rows);
      const args = ['run', manifest, '--api', api.said, '--queue', queue, '--json', '--quiet'];
      const ended = startCommand(CLI, [...args, ...limitFlags(EMBEDDED_LIMITS)], ['--import', probe]).ended;
      return rows / receiptOf(await ended).seconds;
    };
    // The first run creates the queue, which is not what is measured.
    await run(10);
    const perSecond = await run(images);
    const p99 = Number(readFileSync(lag, 'utf8'));
    say(`embedded: ${Math.round(perSecond)}/s, timers late by ${p99} ms (p99)`);
    return {
      title: 'Overhead, embedded queue',
      note: `${images} images, everything but the API in one process. Targets: at least 40/s, timers at most 200 ms late (p99).`,
      head: ['images/s', 'timer lag p99 ms'],
      rows: [[round(perSecond), p99]],
    };
  } finally {
    await api.stop();
  }
}
