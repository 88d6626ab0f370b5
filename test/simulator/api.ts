import { expect, onTestFinished } from 'vitest';
import { z } from 'zod';
import { type Simulator, type SimulatorOptions, startSimulator } from '../helpers/simulator.js';

/** A simulator that ends with the test. */
export async function simulate(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
  const simulator = await startSimulator({ latencySpread: 0, latencyMs: 0, ...options });
  onTestFinished(() => simulator.close());
  return simulator;
}

/** Matchers, typed: vitest's own are `any`. */
export const aNumber: unknown = expect.any(Number);
export const aText = (pattern: RegExp): unknown => expect.stringMatching(pattern);

const anyObject = z.record(z.string(), z.unknown());

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}

/** A call without the client: plain HTTP, the body read as a JSON object. */
export async function call(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init);
  return { status: response.status, headers: response.headers, body: anyObject.parse(await response.json()) };
}

export function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return call(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
}

/** Submits an image and gives its message id. */
export async function submit(
  simulator: Pick<Simulator, 'url'>,
  url: string,
  more: object = {},
): Promise<string> {
  const { body } = await post(`${simulator.url}/describe`, { url, ...more });
  return z.object({ messageId: z.string() }).parse(body).messageId;
}
