import { describe, expect, test } from 'vitest';
import { retryAfterIn } from '../../src/describe-api/retry-after.js';
import { AccountLimits } from '../../src/simulator/limits.js';
import { post, simulate } from './api.js';

function headersOf(answer: { readonly headers: Headers } | undefined): Record<string, string> {
  return Object.fromEntries(answer?.headers ?? []);
}

const IMAGE = 'https://images.example/1.jpg';

describe('the rate limit', () => {
  test('answers 429 with Retry-After above it, and pays nothing', async () => {
    const simulator = await simulate({ rateLimit: { count: 2, perMs: 60_000 } });
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push(await post(`${simulator.url}/describe`, { url: IMAGE }));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429, 429]);
    expect(retryAfterIn(headersOf(answers[2]), 0)).toBe(60_000);
    expect(simulator.stats()).toMatchObject({ paid: 2, submits: 4, answered429: 2, maxSubmitsInASecond: 4 });
  });

  test('can send Retry-After as a date, or leave it out', async () => {
    const simulator = await simulate({ rateLimit: { count: 1, perMs: 60_000 }, retryAfter: 'date' });
    await post(`${simulator.url}/describe`, { url: IMAGE });
    const dated = await post(`${simulator.url}/describe`, { url: IMAGE });
    expect(retryAfterIn(headersOf(dated), Date.now())).toBeGreaterThan(50_000);
    simulator.setOptions({ retryAfter: 'none' });
    expect((await post(`${simulator.url}/describe`, { url: IMAGE })).headers.get('retry-after')).toBeNull();
  });

  test('slides: each submit makes room for one when it leaves the window', () => {
    const limits = new AccountLimits();
    const settings = { rateLimit: { count: 2, perMs: 1000 }, maxInFlight: null };
    const waits = [0, 600, 900, 999, 1000, 1100, 1600].map((now) => limits.admit(settings, now));
    expect(waits).toEqual([undefined, undefined, 100, 1, undefined, 500, undefined]);
  });

  test('of less than one in its window is one in a longer one', () => {
    const limits = new AccountLimits();
    const settings = { rateLimit: { count: 0.5, perMs: 1000 }, maxInFlight: null };
    expect([0, 1500, 2000].map((now) => limits.admit(settings, now))).toEqual([undefined, 500, undefined]);
  });
});

test('more images in progress than allowed get 429 until one is done', async () => {
  const simulator = await simulate({ maxInFlight: 2, latencyMs: 3000 });
  const send = () => post(`${simulator.url}/describe`, { url: IMAGE });
  expect((await send()).status).toBe(200);
  expect((await send()).status).toBe(200);
  expect((await send()).status).toBe(429);
  expect(simulator.stats()).toMatchObject({ inFlight: 2, maxInFlight: 2 });
  await expect.poll(async () => (await send()).status, { timeout: 30_000 }).toBe(200);
  expect(simulator.stats().maxInFlight).toBe(2);
});

test('images in progress end at their own times, whatever the order they came in', () => {
  const limits = new AccountLimits();
  const ends = Array.from({ length: 500 }, (_, i) => (i * 7919) % 300);
  for (const end of ends) limits.occupy(end);
  for (let now = 0; now <= 300; now += 7)
    expect(limits.inFlight(now)).toBe(ends.filter((end) => end > now).length);
});
