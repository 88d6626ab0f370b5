import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { type SimulatorOptions, startSimulator } from '../helpers/simulator.js';
import { readClaim } from '../../src/webhook/deliveries.js';
import { serve } from '../describe-api/http-server.js';
import { readJournal } from '../helpers/journal.js';
import { type DeliveryFaults, spoilDeliveries } from '../helpers/spoilt-deliveries.js';
import { aNumber, simulate, submit } from './api.js';

const IMAGE = 'https://images.example/1.jpg';

async function tempFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'simulator-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

describe('a webhook', () => {
  test('is sent the completed message once, when it completes', async () => {
    const deliveries: unknown[] = [];
    const receiver = await serve((request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => {
        deliveries.push(JSON.parse(body));
        response.end();
      });
    });
    const simulator = await simulate({ latencyMs: 50 });
    const messageId = await submit(simulator, IMAGE, {
      ref: 'r1',
      webhookOverride: `${receiver.url}/hook?x=1`,
    });
    await expect.poll(() => simulator.stats().webhooksSent).toBe(1);
    expect(receiver.requests).toEqual(['POST /hook?x=1']);
    expect(deliveries[0]).not.toHaveProperty('progress');
    expect(readClaim(JSON.stringify(deliveries[0]))).toEqual({ messageId, ref: 'r1' });
  });

  test('that is spoilt comes late, twice or never', async () => {
    const receiver = await serve((_request, response) => response.end());
    const simulator = await simulate({ latencyMs: 20 });
    const sent = async (faults: DeliveryFaults) => {
      const spoilt = spoilDeliveries(simulator, faults);
      await submit(simulator, IMAGE, { webhookOverride: `${receiver.url}/${Object.keys(faults).join()}` });
      expect([...spoilt]).toEqual(Object.entries(faults));
    };
    await sent({ lost: 1 });
    await sent({ doubled: 1 });
    await sent({ late: 1 });
    await expect.poll(() => simulator.stats().webhooksSent, { timeout: 5000 }).toBe(3);
    expect(receiver.requests).toEqual(['POST /doubled', 'POST /doubled', 'POST /late']);
  });

  test('that fails is counted, and not tried again', async () => {
    const receiver = await serve((_request, response) => {
      response.statusCode = 500;
      response.end();
    });
    const simulator = await simulate();
    await submit(simulator, IMAGE, { webhookOverride: receiver.url });
    await submit(simulator, IMAGE, { webhookOverride: 'http://no-such-host.invalid/' });
    await expect.poll(() => simulator.stats().webhooksFailed).toBe(2);
    expect(receiver.requests).toHaveLength(1);
  });

  test('that is not due is forgotten at close', async () => {
    const receiver = await serve((_request, response) => response.end());
    const simulator = await startSimulator({ latencyMs: 100, latencySpread: 0 });
    await submit(simulator, IMAGE, { webhookOverride: receiver.url });
    await simulator.close();
    // Another one with the same latency, begun later, is delivered: the first would have been by then.
    const other = await simulate({ latencyMs: 150 });
    await submit(other, IMAGE, { webhookOverride: `${receiver.url}/other` });
    await expect.poll(() => other.stats().webhooksSent).toBe(1);
    expect(receiver.requests).toEqual(['POST /other']);
  });

  test('waits with any number of others, and Node warns of none', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => warnings.push(warning);
    process.on('warning', note);
    onTestFinished(() => void process.off('warning', note));
    const receiver = await serve((_request, response) => response.end());
    const simulator = await simulate({ latencyMs: 200 });
    const webhook = { webhookOverride: receiver.url };
    await Promise.all(Array.from({ length: 20 }, () => submit(simulator, IMAGE, webhook)));
    await expect.poll(() => simulator.stats().webhooksSent).toBe(20);
    expect(warnings).toEqual([]);
  });
});

test('the journal has what was accepted, by all who wrote to it', async () => {
  const journal = join(await tempFolder(), 'journal.jsonl');
  const first = await simulate({ journal });
  const messageId = await submit(first, IMAGE);
  // Before any close: what is answered is in the file, whatever becomes of the process.
  expect(readJournal(journal)).toEqual([{ time: aNumber, url: IMAGE, messageId }]);
  await submit(await simulate({ journal }), IMAGE);
  expect(readJournal(journal)).toHaveLength(2);
});

test('a port that is taken is an error', async () => {
  const simulator = await simulate();
  await expect(startSimulator({ port: simulator.port })).rejects.toThrow(/EADDRINUSE/);
});

test('options given as undefined are the defaults', async () => {
  const simulator = await simulate({ latencyMs: undefined, token: undefined });
  expect(parseInt((await submit(simulator, IMAGE)).split('-')[2] ?? '', 36)).toBe(1000);
});

test.each([
  ['{"latencyMs":"x"}', /latencyMs/],
  ['{"failures":{"foo":1}}', /failures/],
])('a program’s options that cannot be are refused: %s', async (options, message) => {
  await expect(
    startSimulator(z.custom<Partial<SimulatorOptions>>().parse(JSON.parse(options))),
  ).rejects.toThrow(message);
});
