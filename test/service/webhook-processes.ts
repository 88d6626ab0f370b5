import { expect } from 'vitest';
import { readPrompts } from '../../src/describe-api/dialects/polled.js';
import { makePrompts, hashUrl } from '../../src/simulator/messages.js';
import type { CliProcess } from '../helpers/cli.js';
import { waitUntil } from '../helpers/wait-until.js';
import type { ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

/** Limits that few tests wait for. */
export const LIMITS = ['--rate', '150/s', '--poll-rate', '500/s', '--max-in-flight', '100'];

/** Starts a receiver as a process of its own. @returns its URL, for `--webhook-url` */
export async function receive(fixture: ProcessFixture, ...args: string[]): Promise<string> {
  const receiver = fixture.service.start('webhook', ['--webhook-listen', '127.0.0.1:0', ...args]);
  await waitUntil('it says where it listens', () => receiver.stdout().includes('\n'));
  return receiver.stdout().trim();
}

/** Starts a worker that takes images when this resolves. */
export async function work(fixture: ProcessFixture, ...args: string[]): Promise<CliProcess> {
  const worker = fixture.service.start('worker', [...LIMITS, ...args]);
  await untilSaid(worker, /limits of the account/);
  return worker;
}

/** Each row of the output is there once, and each has the prompts of its own image. */
export async function expectRows(fixture: ProcessFixture, count: number): Promise<void> {
  const records = await fixture.workspace.records('out.csv');
  const ids = records.map(({ id }) => Number(id)).sort((a, b) => a - b);
  expect(ids).toEqual(Array.from({ length: count }, (_, index) => index + 1));
  const wrong = records.filter((record) => {
    const prompts = [1, 2, 3, 4].map((n) => record[`prompt_${n}`]);
    return prompts.join('|') !== readPrompts(makePrompts(hashUrl(record['image'] ?? '')))?.join('|');
  });
  expect(wrong).toEqual([]);
}
