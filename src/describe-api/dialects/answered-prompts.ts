import { z } from 'zod';
import type { Prompts } from '../../shared/outcome.js';
import { readPrompts } from '../prompts.js';
import { jsonIn } from './json-in-text.js';
import { bulletedLines, numberedLines } from './listed-lines.js';

const THINKING = /<think(?:ing)?>/i;
const THOUGHT = /<\/think(?:ing)?>/i;

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
  const [before = '', ...thoughts] = text.split(THINKING);
  const answers = thoughts.map((thought) => {
    const parts = thought.split(THOUGHT);
    return parts.length > 1 ? parts.at(-1) : '';
  });
  return [before.split(THOUGHT).at(-1), ...answers].join('');
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
