import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { z } from 'zod';

/** What is done with one call: `body` is what a well-behaved API would answer. */
export type Act = (call: {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: string;
}) => void;

/** Decides about the nth call (from 1) for an image; undefined is a good answer. */
export type Script = (image: string, nth: number) => Act | undefined;

export interface ScriptedApi {
  readonly url: string;
  readonly port: number;
  /** Calls that came in. */
  readonly submits: number;
  readonly polls: number;
  /** When the submits came in, by a clock that does not go back. */
  readonly submitTimes: readonly number[];
  /** Submits that got a message, by image: each of them is paid. */
  readonly paid: ReadonlyMap<string, number>;
  /** Images whose prompts were handed out. */
  readonly completed: ReadonlySet<string>;
  close(): Promise<void>;
}

const submitSchema = z.object({ url: z.string() });
const json = { 'content-type': 'application/json' };

/** Good answers in bad ways, and bad answers. */
export const acts = {
  answer:
    (status: number, body: unknown, headers: Record<string, string> = {}): Act =>
    ({ response }) => {
      response.writeHead(status, { ...json, ...headers });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    },
  resetAtOnce: (({ request }) => request.socket.resetAndDestroy()) as Act,
  resetDuring: (({ request, response, body }) => {
    response.writeHead(200, { ...json, 'content-length': String(body.length) });
    response.write(body.slice(0, body.length / 2), () => request.socket.resetAndDestroy());
  }) as Act,
  cutOff: (({ response, body }) => {
    response.writeHead(200, json);
    response.end(body.slice(0, body.length / 2));
  }) as Act,
  never: (() => undefined) as Act,
  /** The first half of a good answer, and nothing more. */
  halfAndNoMore: (({ response, body }) => {
    response.writeHead(200, json);
    response.write(body.slice(0, body.length / 2));
  }) as Act,
  /** A good answer whose body takes its time. */
  slowly:
    (ms: number): Act =>
    ({ response, body }) => {
      response.writeHead(200, json);
      response.write(body.slice(0, 10));
      setTimeout(() => response.end(body.slice(10)), ms).unref();
    },
  html: (({ response }) => {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end('<html><body>Just a moment...</body></html>');
  }) as Act,
};

/** An API whose every answer a test can spoil. Messages are completed when they are first polled. */
export async function startScriptedApi(scripts: { submit?: Script; poll?: Script }): Promise<ScriptedApi> {
  const calls = { submits: 0, polls: 0 };
  const submitTimes: number[] = [];
  const paid = new Map<string, number>();
  const completed = new Set<string>();
  const seen = new Map<string, number>();
  const count = (key: string) => {
    const nth = (seen.get(key) ?? 0) + 1;
    seen.set(key, nth);
    return nth;
  };
  const server = createServer((request, response) => {
    void answer(request, response);
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === 'POST') {
      calls.submits++;
      submitTimes.push(performance.now());
      const { url } = submitSchema.parse(JSON.parse(await text(request)));
      const act = scripts.submit?.(url, count(`submit ${url}`));
      const nth = (paid.get(url) ?? 0) + 1;
      const body = JSON.stringify({
        success: true,
        messageId: `${Buffer.from(url).toString('base64url')}.${nth}`,
      });
      // Whatever the caller gets to see: where a good answer was begun, or was lost, there is a message.
      if (act === undefined || !isRefusal.has(act)) paid.set(url, nth);
      (act ?? good)({ request, response, body });
      return;
    }
    calls.polls++;
    const id = decodeURIComponent(request.url?.split('/').pop() ?? '');
    const url = Buffer.from(id.split('.')[0] ?? '', 'base64url').toString();
    const content = ['one', 'two', 'three', 'four'];
    const body = JSON.stringify({ progress: 100, content, originatingMessageId: id, type: 'describe' });
    const act = scripts.poll?.(url, count(`poll ${url}`));
    if (act === undefined) completed.add(url);
    (act ?? good)({ request, response, body });
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const { port } = address;
  return {
    url: `http://127.0.0.1:${port}/v2`,
    port,
    paid,
    completed,
    submitTimes,
    get submits() {
      return calls.submits;
    },
    get polls() {
      return calls.polls;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

const good: Act = ({ response, body }) => {
  response.writeHead(200, json);
  response.end(body);
};

const isRefusal = new WeakSet<Act>();

/** A refusal: nothing is paid. */
export function refuse(status: number, headers: Record<string, string> = {}, body: unknown = ''): Act {
  const act = acts.answer(status, body, headers);
  isRefusal.add(act);
  return act;
}
