import type { IncomingMessage } from 'node:http';

const MOST_BYTES = 256 * 1024;

/** How a body ended: `too-long` by what the client says or by what comes, `broken` when it broke off. */
export type Body = { readonly end: 'whole'; readonly text: string } | { readonly end: 'too-long' | 'broken' };

/**
 * Reads a request's body, up to 256 KB of it.
 * @param goOn is called before the first byte, if the body is read at all
 */
export async function readBody(request: IncomingMessage, goOn: () => void): Promise<Body> {
  if (Number(request.headers['content-length'] ?? 0) > MOST_BYTES) return { end: 'too-long' };
  goOn();
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MOST_BYTES) chunks.push(chunk);
      else resolve({ end: 'too-long' });
    });
    request.once('end', () => resolve({ end: 'whole', text: Buffer.concat(chunks).toString('utf8') }));
    request.on('error', () => resolve({ end: 'broken' }));
    request.once('close', () => resolve({ end: 'broken' }));
  });
}
