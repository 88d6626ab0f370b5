const LONGEST_MS = 15 * 60_000;
const NUMBER = /^\d+(\.\d+)?$/;

/** An HTTP date in one of its three forms (RFC 9110, 5.6.7); the last has no zone and means GMT. */
const HTTP_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? [\w: -]*\d\d:\d\d:\d\d( \d{4}| GMT)$/;

/** The headers of an answer, their names in lower case. */
export type AnswerHeaders = Readonly<Record<string, string | undefined>>;

/** Headers as undici gives them, by their names: of one that comes several times the first value. */
export function firstValues(headers: Readonly<Record<string, string | string[] | undefined>>): AnswerHeaders {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value[0] : value]),
  );
}

/**
 * How long an answer says to wait, in milliseconds from now, at most 15 minutes: `retry-after-ms`, which some services
 * send as well and which is the finer one, else `Retry-After`: seconds (decimals are tolerated) or an HTTP date.
 * @returns 0 for a date in the past; undefined without a header or when it makes no sense
 */
export function retryAfterIn(headers: AnswerHeaders, nowMs: number): number | undefined {
  const fine = headers['retry-after-ms']?.trim() ?? '';
  if (NUMBER.test(fine)) return Math.min(LONGEST_MS, Math.ceil(Number(fine)));
  const text = headers['retry-after']?.trim() ?? '';
  if (NUMBER.test(text)) return Math.min(LONGEST_MS, Math.ceil(Number(text) * 1000));
  if (!HTTP_DATE.test(text)) return undefined;
  const atMs = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  if (Number.isNaN(atMs)) return undefined;
  return Math.min(LONGEST_MS, Math.max(0, atMs - nowMs));
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** What is counted, as it ends the headers' names; some services count one thing alone, and do not name it. */
const KINDS = ['-requests', '-tokens', ''] as const;
/** Numbers from here on are no waits but points in time: seconds, and milliseconds, since 1970. */
const EPOCH_SECONDS = 1e9;
const EPOCH_MS = 1e11;
const ISO_DATE = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;

/**
 * `6m0s`, `1h2m3.5s`, `20ms`, seconds without a unit, or a point in time (ISO 8601, seconds or milliseconds since
 * 1970), in milliseconds from now.
 * @returns below 0 for a time that is over; NaN when it is none of these
 */
function resetToMs(text: string, nowMs: number): number {
  if (NUMBER.test(text)) {
    const value = Number(text);
    if (value < EPOCH_SECONDS) return value * 1000;
    return (value < EPOCH_MS ? value * 1000 : value) - nowMs;
  }
  if (ISO_DATE.test(text)) return Date.parse(text) - nowMs;
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return NaN;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  return parts.reduce((sum, [, value, unit]) => sum + Number(value) * (UNIT_MS[unit ?? ''] ?? 0), 0);
}

/**
 * How long nothing is left of what `x-ratelimit-remaining` counts: requests or tokens, the longer of the two.
 * @returns milliseconds from now, at most 15 minutes; undefined while something is left
 */
export function exhaustedForMs(headers: AnswerHeaders, nowMs: number): number | undefined {
  const waits = KINDS.flatMap((kind) => {
    const remaining = headers[`x-ratelimit-remaining${kind}`]?.trim();
    const reset = headers[`x-ratelimit-reset${kind}`]?.trim() ?? '';
    if (remaining === undefined || !/^-?\d+$/.test(remaining) || Number(remaining) > 0) return [];
    const ms = resetToMs(reset, nowMs);
    return Number.isNaN(ms) ? [] : [Math.min(LONGEST_MS, Math.max(0, Math.ceil(ms)))];
  });
  return waits.length === 0 ? undefined : Math.max(...waits);
}
