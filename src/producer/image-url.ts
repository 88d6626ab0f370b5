import { join, relative, resolve, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { UsageError } from '../shared/errors.js';
import { isBelow } from '../shared/local-file.js';
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

/** A list of one: as JSON, and as pandas saves it. */
const LIST_OF_ONE = /^\[\s*("[^"]*"|'[^']*')\s*\]$/s;

/** What sharp reads, by the endings of their names. */
export const IMAGE_ENDING = /\.(jpe?g|jpe|jfif|png|webp|avif|gif|tiff?|svg|heic|heif|jxl|jp2|bmp)$/i;
/** With two slashes: `a:b.jpg` is a file's name. */
const HAS_SCHEME = /^[a-z][a-z\d+.-]*:\/\//i;
const DATA_URI = /^data:image\/[\w.+-]+(;[\w.+=-]+)*;base64,[\w+/-]+={0,2}$/i;

/** The folder that local images are in. */
export interface ImageRoot {
  /** Absolute, as it was given; and where that is really. */
  readonly path: string;
  readonly real: string;
}

type ResolvedImageUrl =
  /** `identity`: what tells the image from others, where that is not its URL. */
  { readonly url: string; readonly identity?: string } | { readonly problem: string };

/**
 * Makes the absolute, canonical URL of what a manifest's cell holds: http(s), a `data:` URI of an image, or a `file:` URL where
 * there is a folder of local images. Blanks, invisible characters, quotes and angle brackets around it do not count.
 * @param baseUrl what relative ones are relative to
 * @param root what paths are relative to; without it they are no images
 * @param isName it is the name of a file below either, character for character
 * @returns the URL, or what is wrong with the cell, in a few words
 */
export function resolveImageUrl(
  raw: string,
  baseUrl?: URL,
  root?: ImageRoot,
  isName = false,
): ResolvedImageUrl {
  // No URL can say it, nor a file's name.
  if (isName && /\p{Surrogate}/u.test(raw)) return { problem: `half a character in it: ${excerpt(raw)}` };
  if (isName && root !== undefined) return resolvePath(`./${raw}`, root);
  if (isName) return { url: new URL(`./${raw.split('/').map(encodeURIComponent).join('/')}`, baseUrl).href };
  const cell = raw.replace(AROUND, '');
  if (/^data:image\//i.test(cell)) return resolveDataUri(cell);
  const text = unwrap(LIST_OF_ONE.exec(cell)?.[1] ?? cell);
  if (NOTHING.test(text)) return { problem: 'no URL' };
  if (root !== undefined && isPath(text)) return resolvePath(text, root);
  if (text.length > MAX_URL_LENGTH) return tooLong(text.length);
  const urls = cell.match(URL_STARTS)?.length ?? 0;
  if (urls > 1) return { problem: `holds ${urls} URLs: ${excerpt(cell)}` };
  // URL would drop line breaks and tabs, and escape the others: that is no image that is there.
  if (text.search(INVISIBLE) !== -1) {
    return { problem: `a URL has no line breaks or invisible characters: ${excerpt(text)}` };
  }
  if (/^https?:\/\/https?:/i.test(text)) return { problem: `not a URL: ${excerpt(text)}` };
  // A fragment is never sent: in a path it can only be meant as a part of the name.
  const isInBase = baseUrl !== undefined && !HAS_SCHEME.test(text) && !text.startsWith('//');
  const path = isInBase ? text.replaceAll('#', '%23') : text;
  const url = parse(baseUrl === undefined && text.startsWith('//') ? `https:${text}` : path, baseUrl);
  if (url === undefined) {
    const isRelative = baseUrl === undefined && !/^https?:/i.test(text);
    return { problem: `${isRelative ? 'not an absolute URL' : 'not a URL'}: ${excerpt(text)}` };
  }
  if (!isHttp(url)) return { problem: `not an http(s) URL: ${excerpt(text)}` };
  // Rows that differ by it alone share one image.
  if (url.href.includes('#')) url.hash = '';
  return url.href.length > MAX_URL_LENGTH ? tooLong(url.href.length) : { url: url.href };
}

function resolveDataUri(cell: string): ResolvedImageUrl {
  const uri = cell.replace(/\s+/g, '');
  return DATA_URI.test(uri) ? { url: uri } : { problem: `not an image in base64: ${excerpt(cell)}` };
}

function isPath(text: string): boolean {
  return /^file:/i.test(text) || !(HAS_SCHEME.test(text) || text.startsWith('//'));
}

/** The identity is the path below the root, so that images and manifest can move together. */
function resolvePath(text: string, { path, real }: ImageRoot): ResolvedImageUrl {
  if (text.includes('\0')) return { problem: `not a path: ${excerpt(text)}` };
  let file: string;
  try {
    file = /^file:/i.test(text) ? fileURLToPath(text) : resolve(path, text);
  } catch {
    return { problem: `not a file: URL of this machine: ${excerpt(text)}` };
  }
  const root = [path, real].find((folder) => isBelow(file, folder));
  if (root === undefined)
    return { problem: `outside of the images' folder ${path}, which --image-root names: ${excerpt(text)}` };
  const inside = relative(root, file);
  return {
    url: pathToFileURL(join(real, inside)).href,
    identity: `file:${inside.split(sep).join('/')}`,
  };
}

/** Whether a cell looks like an image on this machine, or holds one: where no column has URLs, such cells make the images' one. */
export function holdsLocalImage(cell: string): boolean {
  const text = unwrap(cell.replace(AROUND, ''));
  return /^data:image\//i.test(text) || (isPath(text) && IMAGE_ENDING.test(text));
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
 * What stands for an image in ids and in the output's index: the short hash of its absolute URL, or of what else identifies it.
 * @param prompt what is asked of it, where that is not the same for every row
 */
export function imageHash(url: string, prompt?: string): string {
  return shortHash(prompt === undefined ? url : `${url}\n${prompt}`);
}

function codePointOf(character: string): string {
  return `<U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}>`;
}
