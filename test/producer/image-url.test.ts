import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { imageHash, parseBaseUrl, resolveImageUrl } from '../../src/producer/image-url.js';

describe('resolveImageUrl', () => {
  test.each([
    ['http://a/b.jpg', 'http://a/b.jpg'],
    [' \t\r\nhttps://a/b.jpg\n', 'https://a/b.jpg'],
    ['HTTP://Host:80/A b.jpg', 'http://host/A%20b.jpg'],
    ['http://host', 'http://host/'],
    ['http://host/é?q=ü#x', 'http://host/%C3%A9?q=%C3%BC'],
    ['http://münchen.example/a', 'http://xn--mnchen-3ya.example/a'],
    ['https://a/b?next=http://c/d', 'https://a/b?next=http://c/d'],
    ['https://a/web/2020/https://c/d', 'https://a/web/2020/https://c/d'],
    ['\u200Bhttps://a/b.jpg', 'https://a/b.jpg'],
    ['\u200Ehttps://a/b.jpg\u00A0', 'https://a/b.jpg'],
    ['\uFEFFhttps://a/b.jpg\u200B', 'https://a/b.jpg'],
    ['https://a/b.jpg|', 'https://a/b.jpg'],
    ['<https://a/b.jpg>', 'https://a/b.jpg'],
    ['"https://a/b.jpg"', 'https://a/b.jpg'],
    ["'https://a/b.jpg'", 'https://a/b.jpg'],
    ['![alt](https://a/b.jpg)', 'https://a/b.jpg'],
    ['photo 1.jpg (https://a/b.jpg)', 'https://a/b.jpg'],
    ['["https://a/b.jpg"]', 'https://a/b.jpg'],
    ["[ 'https://a/b.jpg' ]", 'https://a/b.jpg'],
    ['https:\\/\\/a\\/b.jpg', 'https://a/b.jpg'],
    ['https://a/b.jpg?w=1&amp;h=2', 'https://a/b.jpg?w=1&h=2'],
    ['//host/b.jpg', 'https://host/b.jpg'],
    ['https://a/b_(1).jpg', 'https://a/b_(1).jpg'],
  ])('makes of %j the absolute, canonical %s', (raw, url) => {
    expect(resolveImageUrl(raw)).toEqual({ url });
  });

  test.each([
    ['', 'no URL'],
    [' \n', 'no URL'],
    ['a/b.jpg', 'not an absolute URL: a/b.jpg'],
    ['NaN', 'no URL'],
    ['null', 'no URL'],
    ['s3://bucket/b.jpg', 'not an http(s) URL: s3://bucket/b.jpg'],
    ['https://https://a/b.jpg', 'not a URL: https://https://a/b.jpg'],
    ['www.example.org/b.jpg', 'not an absolute URL: www.example.org/b.jpg'],
    ['http://', 'not a URL: http://'],
    ['http://a b/c', 'not a URL: http://a b/c'],
    ['http://host:99999/', 'not a URL: http://host:99999/'],
    ['ftp://host/b.jpg', 'not an http(s) URL: ftp://host/b.jpg'],
    ['data:text/plain;base64,AAAA', 'not an http(s) URL: data:text/plain;base64,AAAA'],
    ['data:image/png,AAAA', 'not an image in base64: data:image/png,AAAA'],
    ['C:\\images\\b.jpg', 'not an http(s) URL: C:\\images\\b.jpg'],
    ['http://a/b\nc', 'a URL has no line breaks or invisible characters: http://a/b c'],
    ['http://a/\u200Bb', 'a URL has no line breaks or invisible characters: http://a/<U+200B>b'],
    ['http://a/\u00A0b', 'a URL has no line breaks or invisible characters: http://a/<U+00A0>b'],
    ['http://a/b https://a/c', 'holds 2 URLs: http://a/b https://a/c'],
    ['http://a/b,https://a/c', 'holds 2 URLs: http://a/b,https://a/c'],
    ['http://a/b|http://a/c;http://a/d', 'holds 3 URLs: http://a/b|http://a/c;http://a/d'],
    ['["http://a/b","http://a/c"]', 'holds 2 URLs: ["http://a/b","http://a/c"]'],
    ["['http://a/b', 'http://a/c']", "holds 2 URLs: ['http://a/b', 'http://a/c']"],
    ['a.jpg (https://a/b),c.jpg (https://a/c)', 'holds 2 URLs: a.jpg (https://a/b),c.jpg (https://a/c)'],
    [`x${'y'.repeat(200)}`, `not an absolute URL: x${'y'.repeat(78)}…`],
    [`http://a/${'x'.repeat(8184)}`, 'a URL of 8193 characters, where 8192 are the most'],
    [`http://a/${'é'.repeat(2000)}`, 'a URL of 12009 characters, where 8192 are the most'],
  ])('refuses %j', (raw, problem) => {
    expect(resolveImageUrl(raw)).toEqual({ problem });
  });

  test('takes a URL of 8,192 characters', () => {
    const url = `http://a/${'x'.repeat(8183)}`;
    expect(resolveImageUrl(url)).toEqual({ url });
  });

  test.each([
    ['b.jpg', 'https://host/images/b.jpg'],
    ['/b.jpg', 'https://host/b.jpg'],
    ['../b.jpg', 'https://host/b.jpg'],
    ['//other/b.jpg', 'https://other/b.jpg'],
    ['http://other/b.jpg', 'http://other/b.jpg'],
    ['a b/c.jpg', 'https://host/images/a%20b/c.jpg'],
    ['a#1.jpg?w=9', 'https://host/images/a%231.jpg?w=9'],
    ['http://other/b.jpg#f', 'http://other/b.jpg'],
  ])('resolves %j against a base URL', (raw, url) => {
    for (const base of ['https://host/images', 'https://host/images/', 'https://host/images/?q#f']) {
      expect(resolveImageUrl(raw, parseBaseUrl(base))).toEqual({ url });
    }
  });

  test('needs a URL with a base URL too', () => {
    expect(resolveImageUrl(' ', parseBaseUrl('https://host'))).toEqual({ problem: 'no URL' });
    expect(resolveImageUrl('mailto:x', parseBaseUrl('https://host'))).toEqual({
      problem: 'not an http(s) URL: mailto:x',
    });
  });
});

describe('parseBaseUrl', () => {
  test.each(['', 'host/images', 'ftp://host/', 'file:///images', 'https://'])('refuses %j', (text) => {
    expect(() => parseBaseUrl(text)).toThrow('expected an http(s) URL such as');
  });
});

describe('imageHash', () => {
  test('hashes an image to 22 characters of base64url, the first half of its sha256', () => {
    // printf http://a/b | sha256sum
    const digest = '1972c518da8e66a8782803107e466159';
    expect(imageHash('http://a/b')).toMatch(/^[\w-]{22}$/);
    expect(Buffer.from(imageHash('http://a/b'), 'base64url').toString('hex')).toBe(digest);
  });
});

describe('resolveImageUrl with a folder of images', () => {
  const root = { path: '/link', real: '/data/photos' };

  test.each([
    ['a.jpg', 'a.jpg'],
    ['sub/../b c.png', 'b c.png'],
    ['./sub/100%#1?.webp', 'sub/100%#1?.webp'],
    ['"a.jpg"', 'a.jpg'],
    ['a:b.jpg', 'a:b.jpg'],
    ['Screenshot 1.23.45\u202FPM.png', 'Screenshot 1.23.45\u202FPM.png'],
    ['/link/a.jpg', 'a.jpg'],
    ['/data/photos/a.jpg', 'a.jpg'],
    ['file:///data/photos/x%20y.jpg', 'x y.jpg'],
    ['..a.jpg', '..a.jpg'],
  ])('knows %j by its path below it', (raw, path) => {
    const url = pathToFileURL(`/data/photos/${path}`).href;
    expect(resolveImageUrl(raw, undefined, root)).toEqual({ url, identity: `file:${path}` });
  });

  test.each([' a.jpg', 'a&amp;b,"c".jpg', 'file:x%20#?.jpg', 'nan\n.jpg'])(
    'takes the name %j as it is',
    (name) => {
      const local = resolveImageUrl(name, undefined, root, true);
      expect(local).toEqual({ url: pathToFileURL(`/data/photos/${name}`).href, identity: `file:${name}` });
      const remote = resolveImageUrl(`d/${name}`, parseBaseUrl('https://host/i'), undefined, true);
      expect(remote).toEqual({ url: `https://host/i/d/${encodeURIComponent(name)}` });
    },
  );

  test('refuses a name with half a character in it', () => {
    const problem = 'half a character in it: a\ud83d.jpg';
    for (const at of [root, undefined])
      expect(resolveImageUrl('a\ud83d.jpg', parseBaseUrl('https://host/i'), at, true)).toEqual({ problem });
  });

  test.each([
    ['../a.jpg', /^outside of the images' folder \/link, which --image-root names: \.\.\/a\.jpg$/],
    ['/etc/passwd', /^outside of/],
    ['/link2/a.jpg', /^outside of/],
    ['file:///etc/passwd', /^outside of/],
    ['file://host/a.jpg', /^not a file: URL of this machine/],
    ['a\0.jpg', /^not a path/],
    ['s3://bucket/a.jpg', /^not an http\(s\) URL/],
    ['', /^no URL/],
  ])('refuses %j', (raw, problem) => {
    expect(resolveImageUrl(raw, undefined, root)).toEqual({
      problem: expect.stringMatching(problem) as unknown,
    });
  });

  test('takes URLs and images in base64 all the same', () => {
    expect(resolveImageUrl('https://h/a.jpg', undefined, root)).toEqual({ url: 'https://h/a.jpg' });
    expect(resolveImageUrl(' data:image/png;base64,AA\nAA ', undefined, root)).toEqual({
      url: 'data:image/png;base64,AAAA',
    });
  });
});
