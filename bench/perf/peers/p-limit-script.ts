// What one would write without a queue: reads the manifest, describes 64 images at a time, appends rows. Nothing is
// remembered, so a crash pays again for whatever was in flight, and for all of it where the output is not looked at.
import { createReadStream, createWriteStream } from 'node:fs';
import { parse } from 'csv-parse';
import { stringify } from 'csv-stringify/sync';
import pLimit from 'p-limit';
import { z } from 'zod';

const paintingSchema = z.object({ id: z.string(), title: z.string(), image: z.string() });
const submittedSchema = z.object({ messageId: z.string() });
const messageSchema = z.object({ content: z.array(z.string()).optional() });

const [, , manifest = '', output = '', api = ''] = process.argv;
const limit = pLimit(64);
const file = createWriteStream(output);
const startedAt = performance.now();

async function call(path: string, body?: object): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(api + path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: 'Bearer any', 'content-type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
    });
    if (response.ok) return response.json();
    if (attempt === 5) throw new Error(`${path}: ${response.status}`);
    await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** attempt));
  }
}

async function describe(row: z.infer<typeof paintingSchema>): Promise<void> {
  const { messageId } = submittedSchema.parse(await call('/describe', { url: row.image }));
  for (let waitMs = 0; ; waitMs = Math.min(5000, waitMs * 1.5 + 100)) {
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    const message = messageSchema.parse(await call(`/message/${messageId}`));
    if (message.content === undefined) continue;
    file.write(
      stringify([[row.id, row.title, row.image, ...message.content, messageId, new Date().toISOString()]]),
    );
    return;
  }
}

const running: Promise<void>[] = [];
for await (const row of createReadStream(manifest).pipe(parse({ columns: true }))) {
  running.push(limit(() => describe(paintingSchema.parse(row))));
}
await Promise.all(running);
file.end();
process.stdout.write(String((performance.now() - startedAt) / 1000));
