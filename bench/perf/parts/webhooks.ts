import { loadavg } from 'node:os';
import type { Limits } from '../../../src/shared/limits.js';
import { UndoStack } from '../../../src/shared/undo.js';
import { freePort } from '../../../test/helpers/redis.js';
import { waitUntil } from '../../../test/helpers/wait-until.js';
import { CLI, startCommand } from '../child.js';
import { writeManifest } from '../manifest.js';
import { readJourneys } from '../outputs.js';
import type { Part } from '../part.js';
import { type Setting, fileIn, limitFlags, openSetting, receiptOf } from '../setting.js';
import { percentile, round } from '../table.js';
import { OutputTail } from '../tail.js';

const LATENCY_MS = 2000;
const WORKERS = 2;

/** How soon an image is written when it is completed, and how many polls that takes, with webhooks and without. */
export const webhooksPart: Part = async ({ folder, full, say }) => {
  const seconds = full ? 60 : 12;
  const rows: (string | number)[][] = [];
  for (const [perSecond, hasWebhooks] of [
    [20, true],
    [50, true],
    [200, true],
    [50, false],
  ] as const) {
    const name = `${hasWebhooks ? 'webhooks' : 'polls alone'}, ${perSecond}/s`;
    const { polls, noticed, written } = await measure(folder, perSecond, perSecond * seconds, hasWebhooks);
    const figures = [percentile(noticed, 0.5), percentile(noticed, 0.9), percentile(written, 0.5)];
    const all = [...figures, percentile(written, 0.9)].map((ms) => Math.round(ms));
    const load = round(loadavg()[0] ?? 0);
    say(`${name}: ${polls} polls an image, written ${all[2] ?? ''} ms after it was completed (p50)`);
    rows.push([name, perSecond * seconds, polls, ...all, load]);
  }
  return [
    {
      title: 'Webhooks',
      note:
        `${WORKERS} workers, a receiver, a coordinator, the API and Redis, each a process; latency ${LATENCY_MS / 1000} s at the median. From the moment ` +
        'at which the API has completed an image and sends its delivery: until the worker has its prompts, and until its row is seen in the output. ' +
        'Milliseconds. Targets: at most 1.2 polls an image, and half of the rows within 300 ms.',
      head: ['told by', 'images', 'polls/image', 'noticed p50', 'p90', 'written p50', 'p90', 'load'],
      rows,
    },
  ];
};

async function measure(folder: string, perSecond: number, images: number, hasWebhooks: boolean) {
  const limits: Limits = {
    rate: { count: perSecond, perMs: 1000 },
    pollRate: { count: 1000, perMs: 1000 },
    maxInFlight: Math.ceil(perSecond * (LATENCY_MS / 1000) * 2) + 20,
  };
  const setting = await openSetting({ latencyMs: LATENCY_MS, latencySpread: 0.3 });
  const undo = new UndoStack();
  undo.defer(() => setting.end());
  try {
    const url = hasWebhooks ? await startReceiver(setting, undo) : undefined;
    for (let i = 0; i < WORKERS; i++) startWorker(setting, limits, url, undo);
    const manifest = await writeManifest(fileIn(folder, 'webhooks.csv'), images);
    const output = fileIn(folder, `webhooks-${perSecond}-${hasWebhooks ? 'on' : 'off'}.csv`);
    const tail = new OutputTail(output);
    const { polls } = receiptOf(
      await setting.run(manifest, output, ['--no-work', ...limitFlags(limits)]).ended,
    );
    const seenAt = await tail.end();
    const journeys = await readJourneys(output);
    if (journeys.length !== images)
      throw new Error(`${journeys.length} of ${images} images are in the output`);
    return {
      polls: round(polls / images),
      noticed: journeys.map(({ noticedAt, completedAt }) => noticedAt - completedAt),
      written: journeys.map(({ messageId, completedAt }) => (seenAt.get(messageId) ?? NaN) - completedAt),
    };
  } finally {
    await undo.release();
  }
}

/** `bulk-describe webhook`. @returns its URL */
async function startReceiver(setting: Setting, undo: UndoStack): Promise<string> {
  const listen = `127.0.0.1:${await freePort()}`;
  const about = ['--api', setting.api, '--queue', setting.queue, '--quiet'];
  start(['webhook', '--webhook-listen', listen, ...about], undo);
  const answers = () =>
    fetch(`http://${listen}/`).then(
      ({ status }) => status === 404,
      () => false,
    );
  await waitUntil('the receiver answers', answers);
  return `http://${listen}/hooks`;
}

function startWorker(setting: Setting, limits: Limits, url: string | undefined, undo: UndoStack): void {
  const about = ['--api', setting.api, '--queue', setting.queue, '--quiet'];
  const webhooks = url === undefined ? [] : ['--webhook-url', url];
  start(['worker', ...about, ...webhooks, ...limitFlags(limits)], undo);
}

function start(args: readonly string[], undo: UndoStack): void {
  const command = startCommand(CLI, args);
  undo.defer(async () => {
    command.kill('SIGTERM');
    const { code, stderr } = await command.ended;
    if (code !== 0) throw new Error(`${args[0] ?? ''} ended with ${code ?? 'a signal'}: ${stderr}`);
  });
}
