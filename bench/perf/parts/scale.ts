import { writeManifest } from '../manifest.js';
import type { Part } from '../part.js';
import { processorTime } from '../processor-time.js';
import { openClient, readRedis } from '../redis-info.js';
import { UNLIMITED, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { round } from '../table.js';

/** What more worker processes bring, and what an image costs Redis. */
export const scalePart: Part = async ({ folder, full, say }) => {
  const images = full ? 30_000 : 5000;
  const rows: (string | number)[][] = [];
  let one = NaN;
  for (const workers of [1, 2, 4]) {
    const measured = await work(folder, images, workers);
    if (workers === 1) one = measured.perSecond;
    say(`${workers} worker(s): ${Math.round(measured.perSecond)}/s, ${measured.scripts} scripts an image`);
    const { scripts, commands, cpu, bytes } = measured;
    rows.push([
      workers,
      Math.round(measured.perSecond),
      round(measured.perSecond / one),
      scripts,
      commands,
      bytes,
      ...cpu.map((ms) => round(ms)),
    ]);
  }
  return [
    {
      title: 'Scale out',
      note:
        `${images} images, an API that answers at once, no limits; one coordinator. Targets: four workers do at least 2.5 times as much as one on 4 or more ` +
        'cores, and on 2 cores no less than one. What Redis does for an image, of the coordinator and the workers together: scripts are round trips ' +
        '(many go out together), commands are counted within scripts too. Milliseconds are of processor time.',
      head: [
        'workers',
        'images/s',
        'of one',
        'scripts/image',
        'commands/image',
        'bytes/image',
        ...['coordinator', 'workers', 'API', 'Redis'].map((who) => `${who} ms/image`),
      ],
      rows,
    },
  ];
};

async function work(folder: string, images: number, workers: number) {
  const setting = await openSetting({});
  const client = openClient(setting.queue);
  try {
    const limits = { ...UNLIMITED, maxInFlight: UNLIMITED.maxInFlight * Math.min(workers, 2) };
    const started = await setting.startWorkers(workers, limits);
    const manifest = await writeManifest(fileIn(folder, 'scale.csv'), images);
    const before = await readRedis(client);
    const run = setting.run(manifest, fileIn(folder, `scale-${workers}.csv`), [
      '--no-work',
      ...limitFlags(limits),
    ]);
    const cpu = await processorTime(run, images, {
      workers: started,
      apiPid: setting.apiPid,
      redis: client,
    });
    const { seconds } = receiptOf(await run.ended);
    const after = await readRedis(client);
    const each = (of: keyof typeof after) => (after[of] - before[of]) / images;
    return {
      perSecond: images / seconds,
      scripts: round(each('clientCommands')),
      commands: round(each('allCommands')),
      cpu: Object.values(cpu),
      bytes: Math.round(each('netBytes')),
    };
  } finally {
    client.disconnect();
    await setting.end();
  }
}
