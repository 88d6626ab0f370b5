import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { serve } from '../describe-api/http-server.js';

export interface Monitor {
  /** For `--ping`: the address of a check, whose last part is secret. */
  readonly url: string;
  /** What was posted so far: what follows the address, and the body. */
  readonly pings: string[][];
}

/**
 * A monitor of healthchecks' kind that ends with the test.
 * @param answer what it does with a ping; by default it takes it
 */
export async function startMonitor(
  answer: (response: ServerResponse, path: string) => void = (response) => response.end('OK'),
): Promise<Monitor> {
  const pings: string[][] = [];
  const listener = async (request: IncomingMessage, response: ServerResponse) => {
    const [path = '', query] = (request.url ?? '').replace('/secret', '').split('?');
    const body = await text(request);
    pings.push([`${request.method === 'POST' ? '' : 'not POST '}${path}${query ? `?${query}` : ''}`, body]);
    answer(response, path);
  };
  const { url } = await serve((request, response) => void listener(request, response));
  return { url: `${url}/secret`, pings };
}
