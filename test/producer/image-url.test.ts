import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseBaseUrl, resolveImageUrl } from '../../src/producer/image-url.js';

describe('resolveImageUrl', () => {
  it.each([
    ['http://a/b.jpg', 'http://a/b.jpg'],
    [' \t\r\nhttps://a/b.jpg\n', 'https://a/b.jpg'],
    ['HTTP://Host:80/A b.jpg', 'http://host/A%20b.jpg'],
    ['http://host', 'http://host/'],
    ['http://host/é?q=ü#x', 'http://host/%C3%A9?q=%C3%BC#x'],
    ['http://münchen.example/a', 'http://xn--mnchen-3ya.example/a'],
    ['https://a/b?next=http://c/d', 'https://a/b?next=http://c/d'],
  ])('makes of %j the absolute, canonical %s', (raw, url) => {
    expect(resolveImageUrl(raw)).toEqual({ url });
  });

  it.each([
    ['', 'no URL'],
    [' \n', 'no URL'],
    ['a/b.jpg', 'not an absolute URL: a/b.jpg'],
    ['//host/b.jpg', 'not an absolute URL: //host/b.jpg'],
    ['www.example.org/b.jpg', 'not an absolute URL: www.example.org/b.jpg'],
    ['http://', 'not a URL: http://'],
    ['http://a b/c', 'not a URL: http://a b/c'],
    ['http://host:99999/', 'not a URL: http://host:99999/'],
    ['ftp://host/b.jpg', 'not an http(s) URL: ftp://host/b.jpg'],
    ['data:image/png;base64,AAAA', 'not an http(s) URL: data:image/png;base64,AAAA'],
    ['C:\\images\\b.jpg', 'not an http(s) URL: C:\\images\\b.jpg'],
    ['http://a/b\nhttp://a/c', 'a URL has no line breaks or tabs: http://a/b http://a/c'],
    ['http://a/b https://a/c', 'more than one URL: http://a/b https://a/c'],
    [`x${'y'.repeat(200)}`, `not an absolute URL: x${'y'.repeat(78)}…`],
    [`http://a/${'x'.repeat(8184)}`, 'a URL of 8193 characters, where 8192 are the most'],
    [`http://a/${'é'.repeat(2000)}`, 'a URL of 12009 characters, where 8192 are the most'],
  ])('refuses %j', (raw, problem) => {
    expect(resolveImageUrl(raw)).toEqual({ problem });
  });

  it('gives what URL makes of a text, also where it does not ask', () => {
    // Each part is mostly plain, so that what is odd about a text is one thing at a time.
    const some = (plain: readonly string[], odd: readonly string[]) => {
      const oddOnes = fc.oneof(fc.constantFrom(...odd), fc.string({ maxLength: 2 }));
      const part = fc.oneof(
        { weight: 6, arbitrary: fc.constantFrom(...plain) },
        { weight: 1, arbitrary: oddOnes },
      );
      return fc.array(part, { minLength: 1, maxLength: 4 });
    };
    const numbers = ['1', '256', '0x1', '0'];
    const labels = some(['ab', 'b-c', 'org', '1a'], ['a--b', '-', 'xn--a', 'ORG', 'a_b', ...numbers]);
    const marks = Array.from('~|^[\\\'"`{<#?&=%*!;:@+,$()').concat('%zz', '%2F', '//');
    const segments = some(
      ['a', 'b.jpg', '_'],
      ['', '.', '..', '%2e', '%2E.', '.%2e', 'a%2e', '.a', ...marks],
    );
    const query = some(['', 'a', '=', '&'], ['..', '/', ...marks]).map((parts) => parts.join(''));
    const schemes = fc.constantFrom('http://', 'https://', 'HTTP://', 'http:', 'https:///');
    const ports = fc.constantFrom('', '', '', ':80', ':443', ':8080', '.');
    const parts = fc.tuple(schemes, labels, ports, segments, fc.option(query));
    fc.assert(
      fc.property(parts, ([scheme, host, port, path, query]) => {
        const text = `${scheme}${host.join('.')}${port}/${path.join('/')}${query === null ? '' : `?${query}`}`;
        const resolved = resolveImageUrl(text);
        if ('url' in resolved) expect(resolved.url).toBe(new URL(text).href);
      }),
      { numRuns: 5000 },
    );
  });

  it('takes a URL of 8,192 characters', () => {
    const url = `http://a/${'x'.repeat(8183)}`;
    expect(resolveImageUrl(url)).toEqual({ url });
  });

  it.each([
    ['b.jpg', 'https://host/images/b.jpg'],
    ['/b.jpg', 'https://host/b.jpg'],
    ['../b.jpg', 'https://host/b.jpg'],
    ['//other/b.jpg', 'https://other/b.jpg'],
    ['http://other/b.jpg', 'http://other/b.jpg'],
    ['a b/c.jpg', 'https://host/images/a%20b/c.jpg'],
  ])('resolves %j against a base URL', (raw, url) => {
    for (const base of ['https://host/images', 'https://host/images/', 'https://host/images/?q#f']) {
      expect(resolveImageUrl(raw, parseBaseUrl(base))).toEqual({ url });
    }
  });

  it('needs a URL with a base URL too', () => {
    expect(resolveImageUrl(' ', parseBaseUrl('https://host'))).toEqual({ problem: 'no URL' });
    expect(resolveImageUrl('mailto:x', parseBaseUrl('https://host'))).toEqual({
      problem: 'not an http(s) URL: mailto:x',
    });
  });
});

describe('parseBaseUrl', () => {
  it.each(['', 'host/images', 'ftp://host/', 'file:///images', 'https://'])('refuses %j', (text) => {
    expect(() => parseBaseUrl(text)).toThrow('expected an http(s) URL such as');
  });
});
