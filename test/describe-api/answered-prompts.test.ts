import { expect, test } from 'vitest';
import { answeredPrompts } from '../../src/describe-api/dialects/answered-prompts.js';

const FOUR = ['a cat', 'b cat', 'c cat', 'd cat'];
const LIST = JSON.stringify(FOUR);

test.each([
  ['thoughts with brackets before it', `<think>The user wants a list [4 items].</think>\n${LIST}`],
  ['thoughts with a list in them', `<think>["x","y","z","w"]? No.</think>${LIST}`],
  ['thoughts whose first tag is missing', `Maybe ["x","y","z","w"].\n</think>\n${LIST}`],
  ['thoughts on both sides', `<think>[</think>${LIST}<think>["</think>`],
  ['brackets before it', `Here [four]: ${LIST}`],
  ['brackets after it', `${LIST} [done] {ok}`],
  ['a quote in brackets before it', `The ["list] is:\n${LIST}`],
  ['braces before it', `Use {"subject"} here: ${LIST}`],
  ['a list of fewer before it', `In the style of ["oil"]: ${LIST}`],
  ['an object around it and talk', `Here {it} is: {"result":{"prompts":${LIST}}} Enjoy [it].`],
  ['tags before it', `{"tags":["k","l","m","n","o"],"prompts":${LIST}}`],
  ['objects with texts', JSON.stringify({ prompts: FOUR.map((text) => ({ text })) })],
  ['objects with descriptions', JSON.stringify(FOUR.map((description, id) => ({ id, description })))],
  ['numbers', FOUR.map((text, i) => `${i + 1}. ${text}`).join('\n')],
  ['numbers in bold', FOUR.map((text, i) => `**${i + 1}.** ${text}`).join('\n')],
  ['numbers in bold with the mark outside', FOUR.map((text, i) => `**${i + 1}**. ${text}`).join('\n')],
  ['whole lines in bold', FOUR.map((text, i) => `**${i + 1}. ${text}**`).join('\r\n\r\n')],
  ['numbers in parentheses', FOUR.map((text, i) => `(${i + 1}) ${text}`).join('\n')],
  ['bold headings', `Sure:\n${FOUR.map((text, i) => `**Prompt ${i + 1}:** ${text}`).join('\n\n')}\nEnjoy.`],
  ['headings of their own', FOUR.map((text, i) => `### Prompt ${i + 1}:\n${text}`).join('\n\n')],
  ['dashes', FOUR.map((text) => `- ${text}`).join('\n')],
  ['stars, introduced', `Here are four prompts:\n\n${FOUR.map((text) => `* ${text}`).join('\n\n')}`],
])('four prompts are read with %s', (_how, text) => {
  expect(answeredPrompts([text])).toEqual(FOUR);
});

test.each([
  ['three in a list', '["a","b","c"]'],
  ['no strings', '[1,2,3,4]'],
  ['other objects', '[{"tag":"a"},{"tag":"b"},{"tag":"c"},{"tag":"d"}]'],
  ['tags within other objects', JSON.stringify(FOUR.map((title) => ({ title, tags: ['k', 'l', 'm', 'n'] })))],
  ['parts of other objects', '[{"a":"k","b":"l","c":"m","d":"n"},{"a":"k","b":"l","c":"m","d":"n"}]'],
  ['three dashes', '- a\n- b\n- c'],
  ['five dashes', '- a\n- b\n- c\n- d\n- e'],
  ['dashes in talk', 'It shows a cat.\n- a\n- b\n- c\n- d\nWhat shall I do?'],
  ['advice after a refusal', "I'm sorry, I can't see it. You can:\n- a\n- b\n- c\n- d"],
  ['three numbers', '1. a\n2. b\n3. c'],
  ['numbers in another order', '1. a\n3. c\n2. b\n4. d'],
  ['numbers without text', '1.\n2.\n3.\n4.'],
  ['amounts', '1 cat\n2 dogs\n3 cows\n4 pigs'],
  ['thoughts that never end', `<think>${LIST}`],
  ['nothing but thoughts', `<think>${LIST}</think>`],
])('%s are no four prompts', (_what, text) => {
  expect(answeredPrompts([text])).toBeUndefined();
});

test('thoughts are no part of four answers of one prompt each', () => {
  expect(answeredPrompts(FOUR.map((text) => `<think>Hm.</think>\n${text}`))).toEqual(FOUR);
  expect(answeredPrompts([...FOUR.slice(1), '<think>Hm.</think>'])).toBeUndefined();
});

test.each([
  '[',
  '["',
  '{"',
  '[{"',
  '["[",',
  '[{"a":',
  '<think>',
  '</think>',
  '\n',
  '\n1.',
  '**1',
  '- ',
  ' ',
  '1 ',
])('a megabyte of %j is read in time that grows with its length', (part) => {
  const text = `x${part.repeat(Math.floor(1_000_000 / part.length))}x`;
  const startedAt = performance.now();
  expect(answeredPrompts([text])).toBeUndefined();
  // Quadratic work would take minutes.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});
