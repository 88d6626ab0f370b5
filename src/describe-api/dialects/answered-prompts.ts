import { type FoundJson, type Loose, jsonIn } from './loose-json.js';
import { cleanPrompt, readPrompts } from './polled.js';

/** One of a model's answers (`choices`). */
export interface ModelAnswer {
  /** Without its thoughts. */
  readonly text: string;
  /** It breaks off: at the length limit, by a filter, by an error. */
  readonly isCut: boolean;
}

/**
 * The four prompts in the free text of a model, where there is no doubt which they are: a JSON list (plain, fenced, with
 * talk around it, in an object), JSON objects with a prompt each, four numbered or bulleted lines, or four answers of one
 * prompt each. Of more than four in JSON the first four are taken, which are paid for.
 * @returns undefined when anything else could be meant: no prompts are better than wrong ones
 */
export function answeredPrompts(answers: readonly ModelAnswer[]): readonly string[] | undefined {
  for (const { text, isCut } of answers) {
    const json = jsonIn(text);
    const isJson = json.values.length > 0 || json.isBroken;
    const list = isJson ? listInJson(json) : isCut ? undefined : listInLines(text);
    const prompts = firstPrompts(list, 4);
    if (prompts !== undefined) return prompts;
  }
  return answers.length < 4 ? undefined : firstPrompts(answers.map(onlyPrompt), 4);
}

/**
 * The first so many of a list, where all of these are prompts; numbers and quotes around them are taken off.
 * @param noPrompt what none begins with
 */
export function firstPrompts(
  list: readonly (string | undefined)[] | undefined,
  count: number,
  noPrompt = NO_PROMPT,
): readonly string[] | undefined {
  const filled = list?.map((text) => text?.trim()).filter((text) => text !== '');
  const prompts = filled
    ?.slice(0, count)
    .flatMap((text) => (text !== undefined && !noPrompt.test(text) ? [text] : []));
  return prompts?.length === count ? undecorated(prompts).map(cleanPrompt) : undefined;
}

/** The text of an answer in which one prompt was asked for, and that says nothing else. */
export function wholePrompt({ text, isCut }: ModelAnswer): readonly string[] | undefined {
  const bare = text.replace(/^```\w*\n|\n```$/g, '').trim();
  const isPlain = !isCut && bare !== '' && !/^[[{]/.test(bare) && !/\n\s*\n/.test(bare) && !refuses(bare);
  return isPlain ? firstPrompts([bare.replace(/^(["“])(.*)["”]$/s, '$2')], 1) : undefined;
}

/** Takes numbers and quotes off where each of them has its own. */
function undecorated(prompts: readonly string[]): readonly string[] {
  const bare = prompts.map((prompt, index) => {
    const text = prompt.replace(/^\(?([1-4])[.)]\s+/, (mark, digit) =>
      digit === `${index + 1}` ? '' : mark,
    );
    const [, quoted] = /^["“]([^"“”]+)["”]$/.exec(text) ?? [];
    return quoted ?? text;
  });
  return bare.every((text, index) => text !== prompts[index]) ? bare : prompts;
}

/** What begins like this is a refusal. */
export const REFUSING_PROMPT =
  /^[\s"'*_([-]*(?:sorry|unfortunately|apologies|my apologies|as an ai|no image|unable|please (?:provide|upload|share|attach|send|give)|(?:i|we) (?:can['’]?t|can ?not|could ?n['’]?t|could not|won['’]?t|will not|(?:do not|don['’]?t) (?:see|have)|(?:was|were) (?:unable|not able))|i['’]?(?: a)?m (?:sorry|unable|afraid|not able))\b/i;

/** In a guess: a refusal, talk, or one side of the picture. */
const NO_PROMPT =
  /^[\s"'*_([-]*(?:(?:i['’]?m|i am|i can|i could|i do|i don|i was|we can|sorry|unfortunately|apologies|my apologies|as an ai|no image|unable|please)\b|(?:subject|setting|style|medium|mood|atmosphere|light(?:ing)?|colou?rs?|colou?r palette|composition|background|foreground|camera|artists?|tags?|keywords|title|negative prompt|aspect ratio)\W{0,3}:)/i;

function onlyPrompt({ text, isCut }: ModelAnswer): string | undefined {
  const { values, isBroken } = jsonIn(text);
  const [value] = values;
  if (isCut || isBroken || values.length > 1) return undefined;
  return value === undefined ? text : promptIn(value, true);
}

// What a model says beside its answer

const TAG = '(?:\\w+:)?(?:begin_of_|start_)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)';
const THOUGHT_BEGINS = `(?:[<◁]\\|?${TAG}\\|?[>▷]|\\[THINK(?:ING)?\\])`;
const THOUGHT_ENDS = `(?:[<◁](?:\\/|\\|?end_(?:of_)?)${TAG}\\|?[>▷]|\\[\\/THINK(?:ING)?\\])`;
const THOUGHT = new RegExp(`${THOUGHT_BEGINS}.*?(?:${THOUGHT_ENDS}|$)`, 'gis');
const LAST_THOUGHT_ENDS = new RegExp(THOUGHT_ENDS, 'i');
const CHANNEL = /<\|channel\|>/i;
const FINAL_CHANNEL = /<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>/i;
const WRAPPER = /<\|[\w ]{1,40}\|>|<\/?(?:answer|output|response|result|solution)>/gi;

/**
 * Leaves out what a model has thought aloud, in whatever markup. Some begin without the first tag, and a thought that never
 * ends has no answer behind it.
 */
export function withoutThoughts(text: string): string {
  const parts = CHANNEL.test(text) ? text.split(FINAL_CHANNEL).slice(1) : [text];
  const answer = parts.at(-1) ?? '';
  return (answer.replace(THOUGHT, '').split(LAST_THOUGHT_ENDS).at(-1) ?? '').replace(WRAPPER, '');
}

const REFUSING =
  /\b(sorry|apologi[sz]e|unfortunately|can['’]?t|can ?not|couldn['’]?t|could not|won['’]?t|unable|not (?:able|allowed|permitted|possible)|no image|(?:do not|don['’]?t|did not|didn['’]?t) (?:see|have|receive|get|find))\b/i;
/** Where a refusal says so. */
const FIRST_WORDS = 300;

/** Whether a text says that there will be no prompts: what follows it is advice, or made up. */
function refuses(text: string): boolean {
  return REFUSING.test(text.trim().slice(0, FIRST_WORDS));
}

/** Whether an answer is nothing but a refusal, in words of the model's own. */
export function isRefusal(text: string): boolean {
  const { values, isBroken } = jsonIn(text);
  return refuses(text) && values.length === 0 && !isBroken;
}

// JSON

type Names = 'prompts' | 'texts' | 'others';

/**
 * What a key promises: prompts, texts that are prompts where nothing else is called so, or something else.
 * @param key `Prompt 1`, `image_prompts`, `caption`
 * @param isAlone nothing is beside it, so it may be a mere wrapper (`result`)
 */
function namesOf(key: string, isAlone: boolean): Names {
  const name = key.toLowerCase().replace(/[\s\d_#-]/g, '');
  if (/negative|user|system|original|input/.test(name)) return 'others';
  if (/prompts?(text)?$|промпт|提示|プロンプト/.test(name)) return 'prompts';
  const isText = /^(image)?(description|caption|text|version|variation|option)s?$|^$/.test(name);
  const isWrapper = isAlone && /^(content|item|result|answer|output|response|data|list)s?$/.test(name);
  return isText || isWrapper ? 'texts' : 'others';
}

function entriesNamed(object: Map<string, Loose>, names: Names): [string, Loose][] {
  return [...object].filter(([key]) => namesOf(key, object.size === 1) === names);
}

function listInJson({ values, before, isBroken }: FoundJson): string[] | undefined {
  if (isBroken || refuses(before)) return undefined;
  const lists = values.map((value) => listOf(value, !isOfWords(value))).filter((list) => list !== undefined);
  return lists.length > 0 ? onlyOne(lists) : allTexts(values.map((value) => promptIn(value, true)));
}

/** Tags, colours, or whatever else one word says. */
function isOfWords(value: Loose): boolean {
  return (
    Array.isArray(value) && value.every((text) => typeof text === 'string' && /^[\p{L}\p{N}_-]*$/u.test(text))
  );
}

/**
 * A list of prompts: the value itself, or the one in an object or a list of one around it.
 * @param isNamed whether mere texts are prompts here; else it takes the word
 */
function listOf(value: Loose, isNamed: boolean): string[] | undefined {
  if (value instanceof Map) return listInObject(value, isNamed);
  if (!Array.isArray(value)) return undefined;
  const [first = null] = value;
  return value.length === 1 ? listOf(first, isNamed) : allTexts(value.map((item) => promptIn(item, isNamed)));
}

/** A list under a name, or texts that are numbered by their names. Where anything is called a prompt, nothing else is one. */
function listInObject(object: Map<string, Loose>, isNamed: boolean): string[] | undefined {
  for (const names of ['prompts', 'texts', 'others'] as const) {
    const entries = entriesNamed(object, names);
    const areNamed = names === 'prompts' || (names === 'texts' && isNamed);
    const lists = entries.map(([, value]) => listOf(value, areNamed));
    const numbered = areNamed ? numberedTexts(entries) : [];
    const found = [...lists, ...numbered].filter((list) => list !== undefined);
    if (found.length > 0) return onlyOne(found);
    if (names === 'prompts' && entries.length > 0) return undefined;
  }
  return undefined;
}

/** `{"prompt_1": "...", ...}`, `{"1": {"text": "..."}, ...}`: what is numbered from 1 to 4 under one name. */
function numberedTexts(entries: readonly [string, Loose][]): (string[] | undefined)[] {
  const byName = new Map<string, Map<string, Loose>>();
  for (const [key, value] of entries) {
    const [, name, digit] = /^(.*?)[\s_#-]*([1-4])$/s.exec(key) ?? [];
    if (name === undefined || digit === undefined) continue;
    byName.set(name, (byName.get(name) ?? new Map<string, Loose>()).set(digit, value));
  }
  return [...byName.values()].map((texts) =>
    allTexts(['1', '2', '3', '4'].map((digit) => promptIn(texts.get(digit) ?? null, true))),
  );
}

/** The one prompt of a value: itself, or what an object calls its prompt, else its only text or description. */
function promptIn(value: Loose, isNamed: boolean): string | undefined {
  if (typeof value === 'string') return isNamed ? value : undefined;
  if (!(value instanceof Map)) return undefined;
  const exact = value.get('prompt');
  if (typeof exact === 'string') return exact;
  for (const names of ['prompts', 'texts'] as const) {
    const texts = entriesNamed(value, names).flatMap(([, text]) => (typeof text === 'string' ? [text] : []));
    if (texts.length > 0)
      return texts.length === 1 && (isNamed || names === 'prompts') ? texts[0] : undefined;
  }
  return undefined;
}

function allTexts(texts: readonly (string | undefined)[]): string[] | undefined {
  const all = texts.filter((text) => text !== undefined);
  return all.length === texts.length && all.length >= 4 ? all : undefined;
}

function onlyOne(lists: readonly string[][]): string[] | undefined {
  return new Set(lists.map((list) => JSON.stringify(list))).size === 1 ? lists[0] : undefined;
}

// Lines

/**
 * `1. `, `2) `, `(3) `, `Prompt 4: `, each also in bold (`**1.** `, `**Prompt 1:** `, `**1. ...**`), as a heading or
 * behind a bullet. Groups: heading, bold begins, word, digit, mark, bold ends, mark, text.
 */
const NUMBERED =
  /^(?:[-*+•]\s+|(#{1,6})\s+)?(\*\*|__)?((?:image\s+)?(?:prompt|option|variation|version|description)\s*)?[#(]?([1-4])\s*([.):–—-])?(\*\*|__)?([.):–—-])?(?:\s+(.*))?$/is;
const BULLETED = /^[-*+•–]\s+(.*)$/s;
/** Fences and rules. */
const DECORATION = /^(?:```\w*|[-*_=]{3,})$/;
const INTRODUCING =
  /prompt|description|caption|variation|промпт|提示|プロンプト|^(?:sure|certainly|of course|ok|okay|here (?:they|you|are|is))\b/i;
const ADVISING =
  /\b(please|you (?:can|could|may|might|should)|try|steps?|instead|make sure|ensure|upload)\b/i;

function listInLines(text: string): readonly string[] | undefined {
  const lines = text.split('\n').map((line) => line.trim().replace(/^>\s+/, ''));
  const written = lines.filter((line) => line !== '' && !DECORATION.test(line));
  return readPrompts(text) ?? numberedLines(written) ?? bulletedLines(written);
}

/** Whether a list of prompts may follow these lines: the last one promises it, and none is about what cannot be done. */
function introduces(lines: readonly string[]): boolean {
  const last = lines.at(-1) ?? '';
  return !refuses(lines.join('\n')) && (last === '' || (INTRODUCING.test(last) && !ADVISING.test(last)));
}

/** @returns isNamed: it calls itself a prompt; isHeading: text behind it may be a title */
function numberedLine(line: string, at: number) {
  const [, heading, bold, word, digit, mark, boldEnds, lateMark, rest = ''] = NUMBERED.exec(line) ?? [];
  const isAlone = rest === '' && (heading ?? bold ?? word) !== undefined;
  if (digit === undefined || ((mark ?? lateMark) === undefined && !isAlone)) return [];
  const isBold = bold !== undefined && boldEnds === undefined && rest.endsWith(bold);
  const text = isBold ? rest.slice(0, -bold.length) : rest;
  return [{ at, digit, isNamed: word !== undefined, isHeading: isBold || heading !== undefined, text }];
}

/** Lines 1 to 4 of a numbered list, each of which is there once and in order; their texts may be on the line after. */
function numberedLines(lines: readonly string[]): string[] | undefined {
  const items = lines.flatMap(numberedLine);
  const [first] = items;
  if (first === undefined || items.map(({ digit }) => digit).join('') !== '1234') return undefined;
  const before = lines.slice(0, first.at);
  if (first.isNamed ? refuses(before.join('\n')) : !introduces(before)) return undefined;
  // Each item has as many lines of its own; what is more behind the last is talk.
  const more = (items[1]?.at ?? 0) - first.at - 1;
  if (more > 1 || items.some(({ at }, index) => at !== first.at + index * (more + 1))) return undefined;
  const behind = lines.slice(first.at + 4 * (more + 1));
  if (refuses(behind.join('\n'))) return undefined;
  if (more === 0) return items.map(({ text }) => text);
  // A second line behind a text continues it, or goes into its details; behind a heading it is the text.
  const isTextBelow = items.every(({ isHeading, text }) => isHeading || text === '');
  return isTextBelow ? items.map(({ at }) => lines[at + 1] ?? '') : undefined;
}

/** Four lines with bullets and nothing else, but for one line that introduces them: bullets are in any talk. */
function bulletedLines(lines: readonly string[]): string[] | undefined {
  const [first = ''] = lines;
  const isIntroduced = !BULLETED.test(first) && /[:：]\W*$/.test(first.slice(-10)) && introduces([first]);
  const items = (isIntroduced ? lines.slice(1) : lines).map((line) => BULLETED.exec(line)?.[1]);
  return items.length === 4 ? allTexts(items) : undefined;
}
