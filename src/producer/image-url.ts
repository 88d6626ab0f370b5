import { UsageError } from '../shared/errors.js';
import { shortHash } from '../shared/short-hash.js';

/** Longer URLs are refused by most servers; they are data that went into the wrong column. */
const MAX_URL_LENGTH = 8192;

type ResolvedImageUrl = { readonly url: string } | { readonly problem: string };

/**
 * Makes the absolute, canonical http(s) URL of what a manifest's cell holds; space around it does not count.
 * @param baseUrl what relative ones are relative to
 * @returns the URL, or what is wrong with the cell, in a few words
 */
export function resolveImageUrl(raw: string, baseUrl?: URL): ResolvedImageUrl {
  const text = raw.trim();
  if (text === '') return { problem: 'no URL' };
  if (text.length > MAX_URL_LENGTH) return tooLong(text.length);
  // URL would drop line breaks and tabs and escape blanks, and so make one URL of two.
  if (/[\t\r\n]/.test(text)) return { problem: `a URL has no line breaks or tabs: ${excerpt(text)}` };
  if (/ https?:\/\//i.test(text)) return { problem: `more than one URL: ${excerpt(text)}` };
  const url = parse(text, baseUrl);
  if (url === undefined) {
    const isRelative = baseUrl === undefined && !/^https?:/i.test(text);
    return { problem: `${isRelative ? 'not an absolute URL' : 'not a URL'}: ${excerpt(text)}` };
  }
  if (!isHttp(url)) return { problem: `not an http(s) URL: ${excerpt(text)}` };
  return url.href.length > MAX_URL_LENGTH ? tooLong(url.href.length) : { url: url.href };
}

/**
 * Reads `--base-url`. It names a folder whether or not a slash ends it: without one, `new URL` would put an image
 * beside the folder in place of into it.
 * @throws {UsageError} when it is no absolute http(s) URL
 */
export function parseBaseUrl(text: string): URL {
  const url = parse(text.trim(), undefined);
  if (url === undefined || !isHttp(url)) {
    throw new UsageError(
      `--base-url ${text}: expected an http(s) URL such as https://images.example.org/paintings/`,
    );
  }
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return url;
}

/** Nearly all are URLs: to ask `URL.canParse` before would read each of a million twice. */
function parse(text: string, base: URL | undefined): URL | undefined {
  try {
    return new URL(text, base);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

function isHttp(url: URL): boolean {
  return (url.protocol === 'http:' || url.protocol === 'https:') && url.hostname !== '';
}

function tooLong(length: number): ResolvedImageUrl {
  return { problem: `a URL of ${length} characters, where ${MAX_URL_LENGTH} are the most` };
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, ' ');
  return line.length > 80 ? `${line.slice(0, 79)}…` : line;
}

/** What stands for an image in ids and in the output's index: the short hash of its absolute URL. */
export function imageHash(url: string): string {
  return shortHash(url);
}
