/**
 * What a browser may do with our pages: nothing but show them, with images from wherever the manifest says, and the
 * one script that has the nonce.
 */
export function pageHeaders(nonce: string): Record<string, string> {
  return {
    ...COMMON_HEADERS,
    'content-security-policy': policy({
      'img-src': '* data:',
      'style-src': `'nonce-${nonce}'`,
      'script-src': `'nonce-${nonce}'`,
      'connect-src': "'self'",
    }),
  };
}

/** The board is a page of Bull Board's: its own scripts and styles. The fonts of others that it asks for are not loaded. */
export const BOARD_HEADERS: Record<string, string> = {};

/** Headers of every answer. */
export const COMMON_HEADERS: Record<string, string> = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), microphone=(), geolocation=()',
  'cache-control': 'no-store',
};

Object.assign(BOARD_HEADERS, COMMON_HEADERS, {
  'content-security-policy': policy({
    'img-src': "'self' data:",
    'style-src': "'self' 'unsafe-inline'",
    'script-src': "'self'",
    'worker-src': "'self' blob:",
    'font-src': "'self' data:",
    'connect-src': "'self'",
  }),
});

function policy(allowed: Readonly<Record<string, string>>): string {
  const all = {
    'default-src': "'none'",
    'base-uri': "'self'",
    'form-action': "'self'",
    'frame-ancestors': "'none'",
    ...allowed,
  };
  return Object.entries(all)
    .map(([name, sources]) => `${name} ${sources}`)
    .join('; ');
}
