import { z } from 'zod';
import type { RunStatus } from '../shared/published.js';

/** What is shown of a describe job; its data may be anybody's. */
export const imageDataSchema = z.object({ url: z.string(), row: z.number() });

/** Whole numbers as people write them: 12,345. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** `0.5/s` or `20.0/min`. */
export function speedText(perSecond: number): string {
  return perSecond >= 1 ? `${perSecond.toFixed(1)}/s` : `${(perSecond * 60).toFixed(1)}/min`;
}

/** Rows that are accounted for. */
export function settledRows({ described, resumed, copied, failed }: RunStatus): number {
  return described + resumed + copied + failed;
}

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
