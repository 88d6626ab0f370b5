import { describe, expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import { parsePromptTemplate } from '../../src/producer/prompt-template.js';
import { toRow } from '../../src/producer/row-reader.js';

const COLUMNS = ['id', 'image', 'title'];

describe('a prompt with columns in it', () => {
  test('is filled with the row’s cells, also several times', () => {
    const prompt = parsePromptTemplate('{{title}} ({{ id }}): what is {{title}}?', COLUMNS);
    expect(prompt?.columns).toEqual([2, 0]);
    expect(prompt?.fill([' A barn ', '7'])).toBe('A barn (7): what is A barn?');
    expect(prompt?.fill(['{{id}}', '$&'])).toBe('{{id}} ($&): what is {{id}}?');
  });

  test('is none without a placeholder, and refused with a column that is not there', () => {
    expect(parsePromptTemplate('Describe it {briefly}.', COLUMNS)).toBeUndefined();
    expect(() => parsePromptTemplate('{{titel}}', COLUMNS)).toThrow(
      '--prompt titel: the manifest has no such column',
    );
  });

  test('is literal where braces are JSON, and refused where they seem to be a placeholder', () => {
    expect(parsePromptTemplate('Answer as {"a": {"b": {}}}', COLUMNS)).toBeUndefined();
    const prompt = parsePromptTemplate('{"about": {{title}}, "a": {{{id}}}}', COLUMNS);
    expect(prompt?.fill(['x', '7'])).toBe('{"about": x, "a": {7}}');
    for (const text of ['{{}}', '{{ }}', '{{title', '{{title}', '{{title}} {{'])
      expect(() => parsePromptTemplate(text, COLUMNS)).toThrow(/^--prompt: "\{\{.*" names no column: write/);
  });

  test('makes two rows of one image two images, unless their prompts are the same', () => {
    const prompt = parsePromptTemplate('About {{title}}', COLUMNS);
    const rowOf = (id: string, title: string) =>
      toRow(
        { number: 1, line: 2, cells: [id, 'https://a/b.jpg', title] },
        { urlColumn: { index: 1, path: [] }, prompt },
      );
    expect(rowOf('1', 'x')).toMatchObject({
      prompt: 'About x',
      image: imageHash('https://a/b.jpg', 'About x'),
    });
    expect(rowOf('1', 'x').image).toBe(rowOf('2', 'x').image);
    expect(rowOf('1', 'x').image).not.toBe(rowOf('1', 'y').image);
  });
});
