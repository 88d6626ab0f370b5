import { UsageError } from '../shared/errors.js';
import { shortHash } from '../shared/short-hash.js';

/** Longer URLs are refused by most servers; they are data that went into the wrong column. */
const MAX_URL_LENGTH = 8192;

/** What pandas, databases and programs write where there is nothing. */
export const NOTHING = /^(nan|null|none|n\/a|undefined)?$/i;
/** URLs that begin a cell, or stand behind what lists and prose put between them; not those that are a part of another one. */
const URL_STARTS = /(?:^|[\s,;|("'<])https?:\/\//gi;
const BETWEEN_URLS = ',;|';
/** Characters that nobody sees, and blanks that are none of ASCII's. */
const INVISIBLE = /[\p{Cf}\p{Cc}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const AROUND = /^(?:\s|\p{Cf})+|(?:\s|\p{Cf})+$/gu;
/** `name.jpg (https://...)`, as Airtable has it, and Markdown's `![alt](https://...)`. */
const IN_PARENTHESES = /^[^]*\((https?:\/\/[^()\s]+)\)$/i;

type ResolvedImageUrl = { readonly url: string } | { readonly problem: string };

/**
 * Makes the absolute, canonical http(s) URL of what a manifest's cell holds. Blanks, invisible characters, quotes and angle
 * brackets around it do not count.
 * @param baseUrl what relative ones are relative to
 * @returns the URL, or what is wrong with the cell, in a few words
 */
export function resolveImageUrl(raw: string, baseUrl?: URL): ResolvedImageUrl {
  const cell = raw.replace(AROUND, '');
  const text = unwrap(cell);
  if (NOTHING.test(text)) return { problem: 'no URL' };
  if (text.length > MAX_URL_LENGTH) return tooLong(text.length);
  const urls = cell.match(URL_STARTS)?.length ?? 0;
  if (urls > 1) return { problem: `holds ${urls} URLs: ${excerpt(cell)}` };
  // URL would drop line breaks and tabs, and escape the others: that is no image that is there.
  if (text.search(INVISIBLE) !== -1) {
    return { problem: `a URL has no line breaks or invisible characters: ${excerpt(text)}` };
  }
  if (/^https?:\/\/https?:/i.test(text)) return { problem: `not a URL: ${excerpt(text)}` };
  const url = parse(baseUrl === undefined && text.startsWith('//') ? `https:${text}` : text, baseUrl);
  if (url === undefined) {
    const isRelative = baseUrl === undefined && !/^https?:/i.test(text);
    return { problem: `${isRelative ? 'not an absolute URL' : 'not a URL'}: ${excerpt(text)}` };
  }
  if (!isHttp(url)) return { problem: `not an http(s) URL: ${excerpt(text)}` };
  return url.href.length > MAX_URL_LENGTH ? tooLong(url.href.length) : { url: url.href };
}

/** Whether a cell holds one or more URLs, and nothing else that would matter: such cells make the column of the images. */
export function holdsUrls(cell: string): boolean {
  return /^https?:\/\/[^/\s]/i.test(unwrap(cell.replace(AROUND, '')));
}

/** A URL without what is around it and what stands for its characters, where its meaning is plain. */
function unwrap(text: string): string {
  const isWrapped = /^(?:".*"|'.*'|<.*>)$/s.test(text);
  const bare = IN_PARENTHESES.exec(text)?.[1] ?? (isWrapped ? text.slice(1, -1) : text);
  const url = bare.replaceAll('\\/', '/').replaceAll('&amp;', '&');
  return BETWEEN_URLS.includes(url.at(-1) ?? '') ? url.slice(0, -1) : url;
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

/** With what nobody would see as its code point. */
function excerpt(text: string): string {
  const line = text.replace(INVISIBLE, (character) =>
    /\s/.test(character) && character < '\x7F' ? ' ' : codePointOf(character),
  );
  return line.length > 80 ? `${line.slice(0, 79)}…` : line;
}

/**
 * What stands for an image in ids and in the output's index: the short hash of its absolute URL.
 * @param prompt what is asked of it, where that is not the same for every row
 */
export function imageHash(url: string, prompt?: string): string {
  return shortHash(prompt === undefined ? url : `${url}\n${prompt}`);
}

function codePointOf(character: string): string {
  return `<U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}>`;
}
