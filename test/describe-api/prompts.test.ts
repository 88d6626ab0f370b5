import { expect, test } from 'vitest';
import { readPrompts } from '../../src/describe-api/dialects/polled.js';

const FOUR = ['a, "b" --ar 1:1', 'Ōide\nnext line --ar 1:1', 'c', 'd'];
const keycap = (digit: number): string => `${digit}\uFE0F\u20E3`;
const numbered = FOUR.map((prompt, i) => `${keycap(i + 1)} ${prompt}`);

test.each([
  ['a list with keycaps', numbered],
  ['a list without keycaps', FOUR],
  ['keycaps without U+FE0F', FOUR.map((prompt, i) => `${i + 1}\u20E3 ${prompt}`)],
  ['keycaps without a space', FOUR.map((prompt, i) => `${keycap(i + 1)}${prompt}`)],
  ['white space around', numbered.map((prompt) => `\n ${prompt} \r\n`)],
  ['one string, a line each', numbered.join('\n')],
  ['one string, blank lines between', numbered.join('\r\n\r\n')],
  ['one string, spaces between', numbered.join(' ')],
  ['one string in a list', [numbered.join('\n')]],
])('reads four prompts from %s', (_title, content) => {
  expect(readPrompts(content)).toEqual(FOUR);
});

test('keeps a keycap within a prompt when the numbering is at line starts', () => {
  const prompts = [`a clock showing ${keycap(2)} and ${keycap(3)}`, 'b', 'c', 'd'];
  const content = prompts.map((prompt, i) => `${keycap(i + 1)} ${prompt}`).join('\n');
  expect(readPrompts(content)).toEqual(prompts);
});

test('keeps digits that are no keycaps', () => {
  expect(readPrompts(['1 girl', '2 dogs', '3d render', '4k'])).toEqual([
    '1 girl',
    '2 dogs',
    '3d render',
    '4k',
  ]);
});

test.each([
  ['three', FOUR.slice(0, 3)],
  ['five', [...FOUR, 'e']],
  ['none', []],
  ['one string without keycaps', 'a b c d'],
  ['one string with three keycaps', numbered.slice(0, 3).join('\n')],
  ['keycaps in another order', [numbered[1], numbered[0], numbered[2], numbered[3]].join('\n')],
  ['text before the first keycap', `Prompts: ${numbered.join('\n')}`],
  ['four empty ones', ['', ' ', keycap(3), '\n']],
])('refuses %s', (_title, content) => {
  expect(readPrompts(content)).toBeUndefined();
});
