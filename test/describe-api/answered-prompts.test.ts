import { expect, test } from 'vitest';
import {
  answeredPrompts,
  REFUSING_PROMPT,
  firstPrompts,
  isRefusal,
  withoutThoughts,
} from '../../src/describe-api/dialects/answered-prompts.js';

const FOUR = ['a cat', 'b cat', 'c cat', 'd cat'];
const LIST = JSON.stringify(FOUR);

function promptsIn(texts: readonly string[], { isCut = false } = {}) {
  return answeredPrompts(texts.map((text) => ({ text: withoutThoughts(text), isCut })));
}

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
  ...[
    ['<thinking>', '</thinking>'],
    ['<seed:think>', '</seed:think>'],
    ['<|begin_of_thought|>', '<|end_of_thought|>\n\n<|begin_of_solution|>'],
    ['<|START_THINKING|>', '<|END_THINKING|>'],
    [
      '<|channel|>analysis<|message|>',
      '<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>',
    ],
    ['', '[/THINK]'],
  ].map(([begins, ends]) => [`thoughts in ${begins}`, `${begins}["x","y","z","w"] or\n1. x${ends}${LIST}`]),
  ['a tag around it', `<answer>\n${FOUR.map((text, i) => `${i + 1}. ${text}`).join('\n')}\n</answer>`],
  ['the quotes of Python', `['a cat', "b cat", 'c cat', 'd cat', None,]`.replace(', None,', '')],
  ['an apostrophe in single quotes', "['a cat','b cat','c cat','d cat', 'e cat's toy']"],
  ['a wrapper and a reason beside them', JSON.stringify({ result: { prompts: FOUR, reason: 'x' } })],
  ['numbers for names', JSON.stringify({ 1: FOUR[0], 2: FOUR[1], 3: FOUR[2], 4: FOUR[3] })],
  [
    'numbered objects',
    JSON.stringify(Object.fromEntries(FOUR.map((text, i) => [`Prompt ${i + 1}`, { text, style: 's' }]))),
  ],
  [
    'a positive and a negative',
    JSON.stringify(FOUR.map((a) => ({ positive_prompt: a, negative_prompt: 'x' }))),
  ],
  ['objects in fences of their own', FOUR.map((a) => `\`\`\`json\n{"prompt": "${a}"}\n\`\`\``).join('\n')],
  ['the same list twice', `${LIST}\nAs asked:\n${LIST}`],
  ['a note behind it', `${LIST}\nNote: I cannot tell the aspect ratio.`],
  ['a list of words before it', `Tags: ["k","l","m","n"]\nPrompts: ${LIST}`],
  ['numbers in a list', JSON.stringify(FOUR.map((a, i) => `${i + 1}. ${a}`))],
  ['numbers and quotes', FOUR.map((a, i) => `${i + 1}. "${a}"`).join('\n')],
  ['titles in headings', FOUR.map((a, i) => `### Prompt ${i + 1}: Dawn\n\n> ${a}`).join('\n\n---\n\n')],
  ['titles in bold', FOUR.map((a, i) => `**Prompt ${i + 1}: Dawn**\n${a}`).join('\n\n')],
  ['headings over fences', FOUR.map((a, i) => `**Prompt ${i + 1}**\n\`\`\`\n${a}\n\`\`\``).join('\n')],
  ['keycaps', FOUR.map((a, i) => `${i + 1}\uFE0F\u20E3 ${a}`).join('\n\n')],
  [
    'a description and an introduction',
    `A cat.\n\nFour prompts:\n${FOUR.map((a, i) => `${i + 1}) ${a}`).join('\n')}`,
  ],
  ['dashes', FOUR.map((text) => `- ${text}`).join('\n')],
  ['stars, introduced', `Here are four prompts:\n\n${FOUR.map((text) => `* ${text}`).join('\n\n')}`],
])('four prompts are read with %s', (_how, text) => {
  expect(promptsIn([text])).toEqual(FOUR);
});

test.each([
  ['colours in a sentence', 'Its colours, ["dark red","blue","off white","grey"] mostly, fade.'],
  ['a list of words', 'Its colours: ["red","blue","green","white"]'],
  ['three in a list', '["a","b","c"]'],
  ['no strings', '[1,2,3,4]'],
  ['other objects', '[{"tag":"a"},{"tag":"b"},{"tag":"c"},{"tag":"d"}]'],
  ['tags within other objects', JSON.stringify(FOUR.map((title) => ({ title, tags: ['k', 'l', 'm', 'n'] })))],
  ['parts of other objects', '[{"a":"k","b":"l","c":"m","d":"n"},{"a":"k","b":"l","c":"m","d":"n"}]'],
  ['three dashes', '- a\n- b\n- c'],
  ['five dashes', '- a\n- b\n- c\n- d\n- e'],
  ['dashes in talk', 'It shows a cat.\n- a\n- b\n- c\n- d\nWhat shall I do?'],
  ['advice after a refusal', "I'm sorry, I can't see it. You can:\n- a\n- b\n- c\n- d"],
  ['advice in JSON after a refusal', `I don't see an image. You may want: ${LIST}`],
  ['refusals in a list', JSON.stringify(FOUR.map(() => "I'm sorry, I can't see it."))],
  ['two lists', `Drafts: ["k l","m n","o p","q r"]\nPrompts: ${LIST}`],
  ['tags alone', '{"tags":["k","l","m","n"]}'],
  ['tags beside one prompt', '{"prompt":"a cat","items":["k","l","m","n"],"options":["k","l","m","n"]}'],
  ['texts of tags', '{"tags":[{"text":"k"},{"text":"l"},{"text":"m"},{"text":"n"}]}'],
  ['names in another script', '{"标签":["k","l","m","n"]}'],
  ['attributes of one prompt', '{"prompt":{"subject":"k","style":"l","mood":"m","light":"n"}}'],
  ['negative prompts', JSON.stringify({ negative_prompts: FOUR })],
  ['three prompts beside four captions', '{"prompts":["a","b","c"],"captions":["k","l","m","n"]}'],
  ['texts of two kinds', JSON.stringify(FOUR.map((a) => ({ text: a, description: a })))],
  ['a list within an object that breaks off', '{"tags":["k","l","m","n"],"prompts":["a "b" c","d"]}'],
  ['attributes in lines', '- Subject: a\n- Style: b\n- Mood: c\n- Light: d'],
  ['labels in lines', '1. **Subject**: a\n2. **Style:** b\n3. **Mood**: c\n4. **Lighting**: d'],
  ['steps', 'To describe it:\n1. Check the URL\n2. Upload again\n3. Wait\n4. Ask'],
  ['numbers with details', '1. a\n- k\n2. b\n- l\n3. c\n- m\n4. d\n- n'],
  ['numbers of which one has details', '1. a\n2. b\nmore of it\n3. c\n4. d'],
  ['advice and a late excuse', "1. Check it\n2. Upload it\n3. Wait\n4. Ask\nSorry, I can't help."],
  [
    'a title, and its prompt behind it',
    '**Prompt 1:** a\nk\n**Prompt 2:** b\nl\n**Prompt 3:** c\nm\n**Prompt 4:** d\nn',
  ],
  ['a final channel that is missing', `<|channel|>analysis<|message|>${LIST}`],
  ['three numbers', '1. a\n2. b\n3. c'],
  ['numbers in another order', '1. a\n3. c\n2. b\n4. d'],
  ['numbers without text', '1.\n2.\n3.\n4.'],
  ['amounts', '1 cat\n2 dogs\n3 cows\n4 pigs'],
  ['thoughts that never end', `<think>${LIST}`],
  ['nothing but thoughts', `<think>${LIST}</think>`],
])('%s are no four prompts', (_what, text) => {
  expect(promptsIn([text])).toBeUndefined();
});

test('thoughts are no part of four answers of one prompt each', () => {
  expect(promptsIn(FOUR.map((text) => `<think>Hm.</think>\n${text}`))).toEqual(FOUR);
  expect(promptsIn([...FOUR.slice(1), '<think>Hm.</think>'])).toBeUndefined();
});

test('of an answer that was cut off a closed list counts, and lines do not', () => {
  expect(promptsIn([`${LIST}\nAnd`], { isCut: true })).toEqual(FOUR);
  expect(promptsIn(['1. a\n2. b\n3. c\n4. d'], { isCut: true })).toBeUndefined();
  expect(promptsIn(FOUR, { isCut: true })).toBeUndefined();
});

test.each([
  ['Please provide an image so that I can describe it.', false],
  ["I don't have access to the image.", false],
  ['I was unable to view it.', false],
  ["I won't describe it.", false],
  ["I'm sorry, there is none.", false],
  ['I am standing by a barn', true],
  ['Title: A barn', true],
  ['Please Mr. Postman, a poster', true],
])('where prompts were asked for as JSON, %j is one: %j', (text, is) => {
  expect(firstPrompts([text], 1, REFUSING_PROMPT)).toEqual(is ? [text] : undefined);
});

test('four answers of one prompt each may be JSON of one prompt, and no refusals or errors', () => {
  expect(promptsIn(FOUR.map((prompt) => JSON.stringify({ prompt, style: 's' })))).toEqual(FOUR);
  expect(promptsIn(FOUR.map(() => '{"error":"no image"}'))).toBeUndefined();
  expect(promptsIn([...FOUR.slice(1), "I'm sorry, I can't help with that."])).toBeUndefined();
});

test.each([
  ["I'm sorry, I can't help with identifying people in images.", true],
  ['Unfortunately there is no image.', true],
  ['{"error":"I cannot see it"}', false],
  ['A barn that cannot be seen from here: '.padStart(400, 'It is a red barn. '), false],
  ['It is a barn.', false],
  ['{"prompts":["A beggar who cannot see', false],
])('%j is a refusal in words: %j', (text, is) => {
  expect(isRefusal(text)).toBe(is);
});

test.each([
  '[',
  "['",
  "{'a':",
  '{"a":[',
  '<|channel|>',
  '<answer>',
  '1. a\n',
  "' ",
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
  expect(promptsIn([text])).toBeUndefined();
  // Quadratic work would take minutes.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});
