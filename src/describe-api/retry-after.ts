const LONGEST_MS = 15 * 60_000;

/** An HTTP date in one of its three forms (RFC 9110, 5.6.7); the last has no zone and means GMT. */
const HTTP_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? [\w: -]*\d\d:\d\d:\d\d( \d{4}| GMT)$/;

/**
 * How long an answer says to wait, in milliseconds, at most 15 minutes: `retry-after-ms`, which some services send
 * as well and which is the finer one, else `Retry-After`.
 */
export function retryAfterIn(
  headers: Readonly<Record<string, string | undefined>>,
  nowMs: number,
): number | undefined {
  const fine = headers['retry-after-ms']?.trim() ?? '';
  if (/^\d+(\.\d+)?$/.test(fine)) return Math.min(LONGEST_MS, Math.ceil(Number(fine)));
  return retryAfterToMs(headers['retry-after'], nowMs);
}

/**
 * The `Retry-After` header in milliseconds from now, at most 15 minutes.
 * @param header seconds (decimals are tolerated) or an HTTP date
 * @returns 0 for a date in the past; undefined without a header or when it makes no sense
 */
export function retryAfterToMs(header: string | undefined, nowMs: number): number | undefined {
  const text = header?.trim() ?? '';
  if (/^\d+(\.\d+)?$/.test(text)) return Math.min(LONGEST_MS, Math.ceil(Number(text) * 1000));
  if (!HTTP_DATE.test(text)) return undefined;
  const atMs = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  if (Number.isNaN(atMs)) return undefined;
  return Math.min(LONGEST_MS, Math.max(0, atMs - nowMs));
}
