import { z } from 'zod';
import type { Prompts } from '../../shared/jobs.js';
import { parseJson } from '../../shared/parse-json.js';
import { readPrompts } from '../shapes.js';

const THOUGHT = /<think(?:ing)?>.*?(?:<\/think(?:ing)?>|$)/gis;
const THOUGHT_ENDS = /<\/think(?:ing)?>/i;

const itemSchema = z.union([
  z.object({ prompt: z.string() }).transform(({ prompt }) => prompt),
  z.object({ text: z.string() }).transform(({ text }) => text),
  z.object({ description: z.string() }).transform(({ description }) => description),
]);

/**
 * The four prompts in what a model has answered: four answers of one prompt each, or one that holds a JSON list
 * (plain, fenced, with talk around it, or in an object), or four numbered or bulleted lines. Of more than four the
 * first four are taken: they are paid for. What it thought aloud before is no part of it.
 * @param texts the answer's choices
 * @returns undefined when there are not four
 */
export function answeredPrompts(texts: readonly string[]): Prompts | undefined {
  const answers = texts.map(withoutThinking);
  for (const text of answers) {
    const prompts = firstFourIn(text) ?? firstFour(numberedLines(text)) ?? firstFour(bulletedLines(text));
    if (prompts !== undefined) return prompts;
  }
  return firstFour(answers.filter((text) => text.trim() !== ''));
}

/** Takes `<think>...</think>` out; some models begin without the first tag, and one that never ends has no answer. */
function withoutThinking(text: string): string {
  return text.replace(THOUGHT, '').split(THOUGHT_ENDS).at(-1) ?? '';
}

function firstFour(list: readonly string[] | undefined): Prompts | undefined {
  const filled = list?.map((text) => text.trim()).filter((text) => text !== '');
  return filled !== undefined && filled.length >= 4 ? readPrompts(filled.slice(0, 4)) : undefined;
}

function firstFourIn(text: string): Prompts | undefined {
  for (const value of jsonIn(text)) {
    const prompts = firstFour(listOf(value));
    if (prompts !== undefined) return prompts;
  }
  return undefined;
}

/**
 * A list of texts: the value itself, or the one in an object or a list of one around it.
 * @param depth how deep it may be
 */
function listOf(value: unknown, depth = 4): string[] | undefined {
  if (typeof value !== 'object' || value === null || depth === 0) return undefined;
  if (Array.isArray(value))
    return textsOf(value) ?? (value.length === 1 ? listOf(value[0], depth - 1) : undefined);
  const entries: [string, unknown][] = Object.entries(value);
  // One that is called `prompts` is meant rather than the `tags` before it.
  const isNamed = ([key]: [string, unknown]) => /prompt/i.test(key);
  for (const [, inner] of [...entries.filter(isNamed), ...entries.filter((entry) => !isNamed(entry))]) {
    const list = listOf(inner, depth - 1);
    if (list !== undefined) return list;
  }
  // {"prompt_1": "...", ...}
  return entries.length >= 4 ? textsOf(entries.map(([, inner]) => inner)) : undefined;
}

function textsOf(values: readonly unknown[]): string[] | undefined {
  const texts: string[] = [];
  for (const value of values) {
    // Looked at without a schema where it is a text: a hostile list has very many.
    const text = typeof value === 'string' ? value : itemSchema.safeParse(value).data;
    if (text === undefined) return undefined;
    texts.push(text);
  }
  return texts;
}

/** What is scanned of one text in all: an answer of nothing but brackets is not worth more. */
const MOST_SCANNED = 4_000_000;

/** A list of texts or objects begins here, or an object: a bracket of plain talk (`[4 items]`) is neither. */
const BEGINNING = /\[(?=\s*["{])|\{(?=\s*")/g;

/** Each JSON list or object in a text that is not within another. */
function* jsonIn(text: string): Generator {
  let left = MOST_SCANNED;
  let readTo = 0;
  for (const { index } of text.matchAll(BEGINNING)) {
    if (index < readTo) continue;
    const { end, isClosed } = scan(text, index, index + left);
    const value = isClosed ? parseJson(text.slice(index, end)) : undefined;
    if (value !== undefined) {
      readTo = end;
      yield value;
    }
    left -= end - index;
    if (left <= 0) return;
  }
}

/** Looks for the bracket that closes the one at `from`; brackets within strings do not count. */
function scan(
  text: string,
  from: number,
  limit: number,
): { readonly end: number; readonly isClosed: boolean } {
  let depth = 0;
  let isString = false;
  let at = from;
  for (; at < text.length && at < limit; at++) {
    const character = text[at];
    if (isString) {
      // No string of JSON goes over a line's end: this quote was not its beginning.
      if (character === '\n') break;
      if (character === '\\') at++;
      else if (character === '"') isString = false;
    } else if (character === '"') isString = true;
    else if (character === '[' || character === '{') depth++;
    else if ((character === ']' || character === '}') && --depth === 0)
      return { end: at + 1, isClosed: true };
  }
  return { end: at, isClosed: false };
}

/**
 * `1. `, `2) `, `(3) `, `Prompt 4: `, each also in bold (`**1.** `, `**Prompt 1:** `, `**1. ...**`), as a heading or
 * behind a bullet. Groups: bold begins, digit, mark, bold ends, mark, text.
 */
const NUMBERED =
  /^(?:[-*+•]\s+|#{1,6}\s+)?(\*\*|__)?(?:prompt\s*)?[#(]?([1-4])\s*([.):])?(\*\*|__)?([.):])?(?:\s+(.*))?$/is;
const BULLETED = /^[-*+•–]\s+(.*)$/s;
/** An introduction such as "I'm sorry, I cannot see the image. You can:" is none to four prompts. */
const REFUSING = /\b(sorry|can'?t|can’t|cannot|unable|not able)\b/i;

/** Lines 1 to 4 of a numbered list, each of which is there once and in order; their texts may be on the line after. */
function numberedLines(text: string): string[] | undefined {
  const lines = linesOf(text);
  const items = lines.flatMap((line, index) => {
    const [, bold, digit, mark, boldEnds, lateMark, rest = ''] = NUMBERED.exec(line) ?? [];
    if (digit === undefined || (mark ?? lateMark) === undefined) return [];
    const next = lines[index + 1] ?? '';
    const item = rest === '' && !NUMBERED.test(next) ? next : rest;
    return [{ digit, text: bold !== undefined && boldEnds === undefined ? withoutEnd(item, bold) : item }];
  });
  const isInOrder = items.length === 4 && items.every(({ digit }, index) => digit === String(index + 1));
  return isInOrder ? items.map((item) => item.text) : undefined;
}

/** Four lines with bullets and nothing else, but for one line that introduces them: bullets are in any talk. */
function bulletedLines(text: string): string[] | undefined {
  const lines = linesOf(text);
  const [first = ''] = lines;
  const isIntroduced = !BULLETED.test(first) && /[:：]\W*$/.test(first.slice(-10)) && !REFUSING.test(first);
  const items = (isIntroduced ? lines.slice(1) : lines).map((line) => BULLETED.exec(line)?.[1]);
  const texts = items.filter((item) => item !== undefined);
  return items.length === 4 && texts.length === 4 ? texts : undefined;
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function withoutEnd(text: string, end: string): string {
  return text.endsWith(end) ? text.slice(0, -end.length) : text;
}
