import type { Prompts } from '../shared/jobs.js';

/** A keycap digit: the digit, U+FE0F (which some senders leave out), U+20E3. It is numbering, not prompt. */
const LEADING_KEYCAP = /^[1-4]\uFE0F?\u20E3/u;

function cleanPrompt(text: string): string {
  return text.trim().replace(LEADING_KEYCAP, '').trim();
}

function toPrompts(texts: readonly string[]): Prompts | undefined {
  const [first, second, third, fourth, ...more] = texts.map(cleanPrompt);
  if (first === undefined || second === undefined || third === undefined || fourth === undefined)
    return undefined;
  const prompts: Prompts = [first, second, third, fourth];
  return more.length > 0 || prompts.every((prompt) => prompt === '') ? undefined : prompts;
}

/** Cuts before keycaps 1, 2, 3, 4 in this order, each the first that follows `before` after the one before it. */
function cutAtKeycaps(text: string, before: string): string[] | undefined {
  const starts: number[] = [];
  for (const digit of ['1', '2', '3', '4']) {
    const from = (starts.at(-1) ?? -1) + 1;
    const keycap = new RegExp(`(?<=${before})${digit}\\uFE0F?\\u20E3`, 'gu');
    keycap.lastIndex = from;
    const match = keycap.exec(text);
    if (!match) return undefined;
    starts.push(match.index);
  }
  return starts[0] === 0 ? starts.map((start, i) => text.slice(start, starts[i + 1])) : undefined;
}

function splitPrompts(text: string): string[] | undefined {
  const trimmed = text.trim();
  // A prompt can speak of a keycap too: those at line starts are believed before those within a line.
  return cutAtKeycaps(trimmed, '^|[\\r\\n]\\s*') ?? cutAtKeycaps(trimmed, '^|\\s');
}

/**
 * The four prompts of a message's `content`: a list of four, or one string with each behind its keycap.
 * Keycaps and outer white space are taken off, inner line breaks stay.
 * @returns undefined when there are not exactly four, or all are empty
 */
export function readPrompts(content: string | readonly string[]): Prompts | undefined {
  if (typeof content !== 'string' && content.length !== 1) return toPrompts(content);
  const texts = splitPrompts(typeof content === 'string' ? content : (content[0] ?? ''));
  return texts && toPrompts(texts);
}
