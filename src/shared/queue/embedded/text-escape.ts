/*
 * PostgreSQL's text and jsonb hold neither U+0000 nor a surrogate without its other half, though JavaScript
 * strings and JSON do. Such code units are stored as U+E000 and four hex digits, and so is U+E000 itself:
 * every U+E000 in the database starts an escape, and reading it back is unambiguous.
 */

const ESCAPE = '\uE000';
const UNHOLDABLE = /[\0\uE000\p{Surrogate}]/gu;
const ESCAPED = /\uE000([0-9a-f]{4})/g;
/** JSON text that may hold such a code unit, written out or as an escape of JSON's own. */
const SUSPICIOUS_JSON = /[\0\uE000\p{Surrogate}]|\\u(?:0000|d[89a-f]|e000)/iu;

/** Makes text that PostgreSQL can hold. */
export function escapeText(text: string): string {
  return text.replace(UNHOLDABLE, (unit) => ESCAPE + unit.charCodeAt(0).toString(16).padStart(4, '0'));
}

/** The text that `escapeText` was given. */
export function unescapeText(text: string): string {
  if (!text.includes(ESCAPE)) return text;
  return text.replace(ESCAPED, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16)));
}

/** Makes JSON text that jsonb can hold. Untouched in all but the rarest cases. */
export function escapeJson(json: string): string {
  if (!SUSPICIOUS_JSON.test(json)) return json;
  return JSON.stringify(mapStrings(JSON.parse(json), escapeText));
}

/** Parses jsonb that `escapeJson` made. */
export function parseEscapedJson(json: string): unknown {
  const value: unknown = JSON.parse(json);
  return json.includes(ESCAPE) ? mapStrings(value, unescapeText) : value;
}

/**
 * Like `escapeJson`, for the entries of BullMQ's bulk commands, which carry each job's data as JSON text
 * inside the JSON.
 */
export function escapeBulkJson(json: string): string {
  if (!SUSPICIOUS_JSON.test(json)) return json;
  const entries: unknown = JSON.parse(json);
  if (!Array.isArray(entries)) return escapeJson(json);
  return JSON.stringify(entries.map(escapeEntry));
}

function escapeEntry(entry: unknown): unknown {
  if (!isRecord(entry) || typeof entry['data'] !== 'string') return mapStrings(entry, escapeText);
  const { data, ...rest } = entry;
  return { ...mapRecord(rest, escapeText), data: escapeJson(data) };
}

/** Maps all strings in a JSON value, the keys of its objects too. */
function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, map));
  return isRecord(value) ? mapRecord(value, map) : value;
}

function mapRecord(record: Record<string, unknown>, map: (text: string) => string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).map(([key, item]) => [map(key), mapStrings(item, map)]));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
