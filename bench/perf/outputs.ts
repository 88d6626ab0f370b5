import { createReadStream, createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { formatMessageId, parseMessageId } from '../../src/simulator/messages.js';

/** What a row of an output tells of its image's way; all in epoch milliseconds. */
export interface Journey {
  readonly messageId: string;
  readonly submittedAt: number;
  readonly completedAt: number;
  readonly noticedAt: number;
}

/** Reads an output of the simulator: its message ids say when they were submitted and completed. */
export async function readJourneys(path: string): Promise<Journey[]> {
  const journeys: Journey[] = [];
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const [, id = '', time = ''] = /(sim-[\w-]+),"?(\d{4}-[^",]+Z)"?$/.exec(line) ?? [];
    const facts = parseMessageId(id);
    if (facts === undefined) continue;
    const { submittedAt, latencyMs } = facts;
    journeys.push({
      messageId: id,
      submittedAt,
      completedAt: submittedAt + latencyMs,
      noticedAt: Date.parse(time),
    });
  }
  return journeys;
}

/** Writes an output that holds the first `rows` rows of a manifest of `writeManifest`, as a run would have. */
export async function writeOutput(path: string, rows: number, images = rows): Promise<void> {
  const file = createWriteStream(path);
  file.write('id,title,image,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at\n');
  const prompt =
    '"a quiet harbour at dawn, fishing boats, muted palette, in the style of an old master --ar 50:93"';
  for (let row = 0; row < rows; row++) {
    const id = formatMessageId({
      submittedAt: 1_700_000_000_000 + row,
      latencyMs: 1000,
      fate: 'completes',
      urlHash: (row % images).toString(16).padStart(16, '0'),
      nonce: row.toString(36),
      ref: '',
    });
    const ours = `${prompt},${prompt},${prompt},${prompt},${id},2024-01-01T00:00:00.000Z`;
    const line = `${row},"Painting, number ${row}",https://images.example.org/collection/${row % images}/full.jpg,${ours}\n`;
    if (!file.write(line)) await once(file, 'drain');
  }
  file.end();
  await once(file, 'finish');
}
