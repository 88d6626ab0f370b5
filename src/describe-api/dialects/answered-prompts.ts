import { parseJson } from '../../shared/parse-json.js';
import { z } from 'zod';
import type { Prompts } from '../../shared/outcome.js';
import { readPrompts } from '../prompts.js';

const listSchema = z.array(
  z.union([z.string(), z.object({ prompt: z.string() }).transform(({ prompt }) => prompt)]),
);
const wrappedSchema = z.record(z.string(), z.unknown());

/**
 * The four prompts in what a model has answered: four answers of one prompt each, or one that holds a JSON list
 * (plain, fenced, with talk around it, or in an object), or four numbered lines. Of more than four the first four
 * are taken: they are paid for.
 * @param texts the answer's choices
 * @returns undefined when there are not four
 */
export function answeredPrompts(texts: readonly string[]): Prompts | undefined {
  for (const text of texts) {
    const prompts = firstFour(listIn(text) ?? numberedLines(text));
    if (prompts !== undefined) return prompts;
  }
  return firstFour(texts.filter((text) => text.trim() !== ''));
}

function firstFour(list: readonly string[] | undefined): Prompts | undefined {
  const filled = list?.map((text) => text.trim()).filter((text) => text !== '');
  return filled !== undefined && filled.length >= 4 ? readPrompts(filled.slice(0, 4)) : undefined;
}

function listIn(text: string): string[] | undefined {
  const inFence = /```[a-z]*\s*([\s\S]*?)```/i.exec(text)?.[1];
  for (const part of [text, inFence, between(text, '[', ']'), between(text, '{', '}')]) {
    const list = part === undefined ? undefined : listOf(parseJson(part));
    if (list !== undefined) return list;
  }
  return undefined;
}

function between(text: string, open: string, close: string): string | undefined {
  const from = text.indexOf(open);
  const to = text.lastIndexOf(close);
  return from >= 0 && to > from ? text.slice(from, to + 1) : undefined;
}

/** A list of texts: the value itself, or the one in an object around it. */
function listOf(value: unknown): string[] | undefined {
  const list = listSchema.safeParse(value);
  if (list.success) return list.data;
  const wrapped = wrappedSchema.safeParse(value);
  if (!wrapped.success) return undefined;
  const values = Object.values(wrapped.data);
  const inside = values.map((each) => listSchema.safeParse(each).data).find((each) => each !== undefined);
  // {"prompt_1": "...", ...}
  return inside ?? (values.length >= 4 ? listSchema.safeParse(values).data : undefined);
}

function numberedLines(text: string): string[] | undefined {
  const lines = [...text.matchAll(/^\s*(?:prompt\s*)?([1-4])\s*[.):]\s+(.+)$/gim)];
  const isInOrder = lines.length === 4 && lines.every(([, digit], index) => digit === String(index + 1));
  return isInOrder ? lines.map(([, , prompt]) => prompt ?? '') : undefined;
}
