import { once } from 'node:events';
import { type IncomingMessage, type ServerResponse, createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Stands before an API and writes down what it is asked, in the order in which it is asked. */
export interface RecordingProxy {
  readonly url: string;
  /** `submit`, or `poll <message id>`. */
  readonly calls: string[];
  close(): Promise<void>;
}

/**
 * @param target the API's base URL
 * @param onward what becomes of a path, its query included; `calls` has it as it came
 */
export async function startRecordingProxy(
  target: string,
  onward: (path: string) => string = (path) => path,
): Promise<RecordingProxy> {
  const calls: string[] = [];
  const { origin, pathname } = new URL(target);
  const server = createServer((incoming, response) => {
    const path = incoming.url ?? '';
    calls.push(incoming.method === 'POST' ? 'submit' : `poll ${path.split('/').at(-1)?.split('?')[0] ?? ''}`);
    forward(new URL(onward(path), origin), incoming, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}${pathname}`,
    calls,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function forward(url: URL, incoming: IncomingMessage, response: ServerResponse): void {
  const { method, headers } = incoming;
  const onward = request(url, { method, headers: { ...headers, host: url.host } }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', () => response.destroy());
  response.on('close', () => onward.destroy());
  incoming.pipe(onward);
}
