import type { Cancelled } from '../service/cancel-run.js';
import type { ErrorCode } from '../shared/jobs.js';
import { plural } from '../shared/plural.js';
import type { RunStatus } from '../shared/published.js';

/** What a failure means, and what helps. */
export const CODE_HELP: Readonly<Record<ErrorCode, string>> = {
  'invalid-url': 'The cell is empty or no image URL: nothing was submitted. Correct it in the manifest.',
  'bad-record': 'The record cannot be read: nothing was submitted. Correct it in the manifest.',
  'duplicate-key': 'An earlier row has the same key: nothing was submitted. Give each row a key of its own.',
  'bad-image': 'The image itself cannot be read: nothing was submitted. The next run looks at it again.',
  rejected:
    'The API refuses this image. Only a retry by hand, `retry` or --retry-rejected asks for it again.',
  incomplete: 'The API gave it up each time. The next run submits it again.',
  deadline: 'It was not done in time each time (--deadline). The next run asks for its last message first.',
  http: 'The API answered with an error each time. The next run submits it again.',
  network: 'The API could not be reached, or cut the call off. The next run submits it again.',
  'bad-response':
    'The answer does not hold what was asked for; it was paid. The failures file has what was said.',
  lost: 'Its job has left the queue, and it may have been paid for. The next run submits it again.',
};

/** What cancelling a run has done. */
export function cancelledText(cancelled: Cancelled): string {
  const { output } = cancelled;
  switch (cancelled.kind) {
    case 'winding-down':
      return `cancelled: ${output}: nothing more is submitted; what is in flight is finished and kept`;
    case 'taken-out':
      return `cancelled: ${output}: it was waiting for a server, and is out of the queue`;
    case 'to-be-collected':
      return (
        `cancelled: ${output}: nothing more is submitted; ${plural(cancelled.images, 'image')} in flight ` +
        `${cancelled.images === 1 ? 'is' : 'are'} kept by the next server, which \`bulk-describe serve\` starts`
      );
    case 'abandoned':
      return (
        `cancelled: ${output}: its coordinator is gone; ${plural(cancelled.removed, 'unsubmitted image')} left the ` +
        'queue, and what is in flight is kept for the next start'
      );
  }
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
