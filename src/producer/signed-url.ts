/** Of a URL without such a parameter nothing more is looked at: a manifest has a million. */
const MAY_EXPIRE = /[?&](?:x-(?:amz|goog)-expires|expires|se)=/i;

/**
 * When a signed URL expires, as its own parameters say: those of S3 and what speaks as it does (both versions), Google Cloud
 * Storage, Azure and CloudFront.
 * @returns epoch milliseconds; undefined where it is not signed, or does not say
 */
export function expiryOf(url: string): number | undefined {
  if (!MAY_EXPIRE.test(url)) return undefined;
  const query = url.slice(url.indexOf('?') + 1);
  const given = new Map([...new URLSearchParams(query)].map(([name, value]) => [name.toLowerCase(), value]));
  const expiry = [signedFor(given, 'amz'), signedFor(given, 'goog'), signedUntil(given), sharedUntil(given)];
  return expiry.find((ms) => Number.isFinite(ms));
}

type Parameters = ReadonlyMap<string, string>;

/** `X-Amz-Date=20260102T030405Z&X-Amz-Expires=3600` */
function signedFor(given: Parameters, by: 'amz' | 'goog'): number {
  const date = given.get(`x-${by}-date`) ?? '';
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date) ?? [];
  const signedAt = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return signedAt + wholeNumber(given.get(`x-${by}-expires`)) * 1000;
}

/** `Expires=1767323045&Signature=...`; another `expires` need not speak of the URL. */
function signedUntil(given: Parameters): number {
  return given.has('signature') ? wholeNumber(given.get('expires')) * 1000 : NaN;
}

/** `se=2026-01-02T03:04:05Z&sig=...`; a date alone is its beginning, in UTC. */
function sharedUntil(given: Parameters): number {
  const until = given.get('se') ?? '';
  return given.has('sig') && /^\d{4}-\d\d-\d\d(?:T[\d:.]+Z)?$/.test(until) ? Date.parse(until) : NaN;
}

function wholeNumber(text = ''): number {
  return /^\d{1,12}$/.test(text) ? Number(text) : NaN;
}
