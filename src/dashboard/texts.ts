import { z } from 'zod';

const UNSEEN = /[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069\ufeff]/gu;
const CONTROL_PICTURES = 0x2400;

/**
 * Text of a manifest or an API, with what cannot be seen made visible: control characters as their pictures (`␛`);
 * those that turn the direction of what follows, and halves of characters, as `�`. Tabs and line ends stay.
 */
export function visible(text: string): string {
  return text.replace(UNSEEN, (character) => {
    if (character === '\t' || character === '\n') return character;
    const code = character.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(CONTROL_PICTURES + code) : '\ufffd';
  });
}

/** The URL as it may stand in a link or an image; undefined for anything but http(s). */
export function httpUrl(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : undefined;
}

const LONGEST = 60;

/** What people recognize an image by: its file's name, else its host and path, shortened. */
export function shortUrl(text: string): string {
  if (!URL.canParse(text)) return shorten(visible(text));
  const url = new URL(text);
  const file = url.pathname.split('/').pop() ?? '';
  return shorten(visible(decode(file === '' ? `${url.host}${url.pathname}` : file)));
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A name with a bare percent sign is shown as it is.
    return text;
  }
}

/** Both ends are kept: what tells names apart may be in either. Halves of characters become visible. */
function shorten(text: string): string {
  if (text.length <= LONGEST) return text;
  return visible(`${text.slice(0, LONGEST / 2)}…${text.slice(1 - LONGEST / 2)}`);
}

/** A path as people name a file: its last part. */
export function fileNameOf(path: string): string {
  return visible(path.split(/[/\\]/).pop() ?? path);
}

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

/** Of a result on its way to the coordinator: how the image ended. */
export function resultJobTitle({ name, data }: BoardJob): string {
  const known = resultDataSchema.safeParse(data).data;
  if (known === undefined) return visible(name ?? '');
  const { outcome } = known;
  if (outcome.status === 'described') return `described, message ${visible(outcome.messageId)}`;
  return visible(`failed, ${outcome.code}: ${outcome.reason}`);
}

/** Of a run that a server is to execute: its files, and the schedule that asks for it. */
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
