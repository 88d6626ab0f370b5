import { z } from 'zod';
import { httpUrl, shortUrl } from './image-links.js';
import { visible } from './visible.js';

/** What may be known of a job's data, whoever wrote it. */
const describeDataSchema = z.object({ url: z.string(), row: z.number() });
const resultDataSchema = z.object({
  outcome: z.union([
    z.object({ status: z.literal('described'), messageId: z.string() }),
    z.object({ status: z.literal('failed'), code: z.string(), reason: z.string() }),
  ]),
});
const runDataSchema = z.object({
  manifest: z.string(),
  output: z.string().optional(),
  schedule: z.string().optional(),
});

/** A job as Bull Board hands it to the formatters. */
export interface BoardJob {
  readonly name?: string | undefined;
  readonly data?: unknown;
}

/** What a person is to see of a job of the describe queue: its image and its row. */
export function describeJobTitle({ name, data }: BoardJob): string {
  const known = describeDataSchema.safeParse(data).data;
  return known === undefined ? visible(name ?? '') : `${shortUrl(known.url)}, row ${known.row}`;
}

/** Of a result on its way home: how the image ended. */
export function resultJobTitle({ name, data }: BoardJob): string {
  const known = resultDataSchema.safeParse(data).data;
  if (known === undefined) return visible(name ?? '');
  const { outcome } = known;
  if (outcome.status === 'described') return `described, message ${visible(outcome.messageId)}`;
  return visible(`failed, ${outcome.code}: ${outcome.reason}`);
}

/** Of a run that a home is to execute: its files, and the schedule that asks for it. */
export function runJobTitle({ name, data }: BoardJob): string {
  const known = runDataSchema.safeParse(data).data;
  if (known === undefined) return visible(name ?? '');
  const files = known.output === undefined ? known.manifest : `${known.manifest} → ${known.output}`;
  return visible(known.schedule === undefined ? files : `${known.schedule}: ${files}`);
}

/** Where a describe job's link leads: to its image. Anything but http(s) is no link. */
export function imageLink({ data }: BoardJob): { displayText: string; href: string } | undefined {
  const href = httpUrl(describeDataSchema.safeParse(data).data?.url ?? '');
  return href === undefined ? undefined : { displayText: 'image', href };
}
