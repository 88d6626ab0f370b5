import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { UndoStack } from '../../src/shared/undo.js';

export interface TestServer {
  /** Without a slash at its end. */
  readonly url: string;
  /** `METHOD path` of each request so far. */
  readonly requests: string[];
}

/** An HTTP server on a free port that ends with the test, open connections included. */
export async function serve(listener: RequestListener): Promise<TestServer> {
  const undo = new UndoStack();
  onTestFinished(() => undo.release());
  const requests: string[] = [];
  const url = await serveUntil(undo, (request, response) => {
    requests.push(`${request.method ?? ''} ${request.url ?? ''}`);
    listener(request, response);
  });
  return { url, requests };
}

/** The same until `undo` is released. @returns its URL */
export async function serveUntil(undo: UndoStack, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return `http://127.0.0.1:${address.port}`;
}

/** Answers every request with one status and body. */
export function answering(
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): RequestListener {
  return (_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };
}
