import { describe, expect, test } from 'vitest';
import { TITLES, imageLink } from '../../src/dashboard/board.js';
import { html } from '../../src/dashboard/html.js';
import { httpUrl, shortUrl, visible } from '../../src/dashboard/texts.js';

describe('html', () => {
  test('shows whatever is put into it as text, in elements and in attributes', () => {
    const evil = `<script>alert("1")</script>' & \u0000\u001b`;
    const shown = '&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39; &amp; \u2400\u241b';
    expect(html`<p title="${evil}">${evil}</p>`.markup).toBe(`<p title="${shown}">${shown}</p>`);
  });

  test('takes markup of its own, lists and nothing', () => {
    const items = ['a', 'b'].map((item) => html`<i>${item}</i>`);
    expect(html`${items}${undefined}${false}${3}${['<']}`.markup).toBe('<i>a</i><i>b</i>3&lt;');
  });
});

test('makes control characters visible and leaves the rest', () => {
  expect(visible('a\u0000\u001b\u007f\u0085\tb\nü 葛 👍\u202e\ud83d')).toBe('a␀␛��\tb\nü 葛 👍��');
});

test.each([
  ['https://h.test/a b.jpg', 'https://h.test/a%20b.jpg'],
  ['http://h.test/"><script>', 'http://h.test/%22%3E%3Cscript%3E'],
  ['javascript:alert(1)', undefined],
  ['JavaScript:alert(1)', undefined],
  ['  javascript:alert(1)', undefined],
  ['data:text/html,<script>', undefined],
  ['vbscript:x', undefined],
  ['//h.test/x', undefined],
  ['', undefined],
])('links %s to %s', (text, link) => {
  expect(httpUrl(text)).toBe(link);
});

test.each([
  ['https://h.test/art/N01523_8.jpg?size=8', 'N01523_8.jpg'],
  ['https://h.test/caf%C3%A9.jpg', 'café.jpg'],
  ['https://h.test/100%.jpg', '100%.jpg'],
  ['https://h.test/', 'h.test/'],
  ['https://h.test/%1b%00.jpg', '␛␀.jpg'],
  ['no url', 'no url'],
  [`https://h.test/${'x'.repeat(100)}.jpg`, `${'x'.repeat(30)}…${'x'.repeat(25)}.jpg`],
])('calls the image %s %s', (url, name) => {
  expect(shortUrl(url)).toBe(name);
});

test('titles jobs with what helps people, whatever is in them', () => {
  const data = { run: 'r', url: 'https://h.test/a/b.jpg', row: 7 };
  expect(TITLES.describe({ name: 'describe', data })).toBe('b.jpg, row 7');
  expect(TITLES.describe({ name: 'describe', data: { ...data, title: 'A \u001b Boat' } })).toBe(
    'A ␛ Boat · b.jpg, row 7',
  );
  expect(TITLES.describe({ name: 'by hand', data: null })).toBe('by hand');
  expect(imageLink({ data })).toEqual({ displayText: 'image', href: 'https://h.test/a/b.jpg' });
  expect(imageLink({ data: { ...data, url: 'javascript:alert(1)' } })).toBeUndefined();
  expect(TITLES.results({ data: { outcome: { status: 'failed', code: 'rejected', reason: 'no' } } })).toBe(
    'failed, rejected: no',
  );
  expect(TITLES.runs({ data: { manifest: 'a.csv', output: 'b.csv', schedule: 'nightly' } })).toBe(
    'nightly: a.csv → b.csv',
  );
});
