import { expect, test } from 'vitest';
import { Ping, checkPingUrl, pingUrlOf } from '../../src/service/ping.js';
import { startMonitor } from '../helpers/monitor.js';
import { freePort } from '../helpers/redis.js';

/** One run's start and end. @returns how long the end took, and what was warned of */
async function pinged(url: string | undefined, exitCode = 0) {
  const warnings: string[] = [];
  const ping = new Ping(url, (line) => warnings.push(line));
  ping.start('begins');
  const startedAt = performance.now();
  await ping.end(exitCode, 'ends');
  return { ms: performance.now() - startedAt, warnings: warnings.map((line) => line.replace(/:\d+/g, '')) };
}

test.each([
  [0, '', ['/start', '']],
  [2, '?create=1', ['/start?create=1', '/2?create=1']],
  [130, '/', ['/start', '/130']],
])('exit code %i at a URL that ends with "%s" calls %j, in this order', async (exitCode, end, calls) => {
  const monitor = await startMonitor();
  expect((await pinged(monitor.url + end, exitCode)).warnings).toEqual([]);
  expect(monitor.pings.map(([path]) => path)).toEqual(calls);
  expect(monitor.pings.map(([, body]) => body)).toEqual(['begins', 'ends']);
});

test('a start that is answered late arrives before the end', async () => {
  const monitor = await startMonitor((response, path) => {
    setTimeout(() => response.end('OK'), path === '/start' ? 300 : 0);
  });
  expect((await pinged(monitor.url)).warnings).toEqual([]);
  expect(monitor.pings.map(([path]) => path)).toEqual(['/start', '']);
});

test('a monitor that fails for a moment is asked again', async () => {
  const monitor = await startMonitor((response) => {
    response.writeHead(monitor.pings.length < 3 ? 503 : 200).end();
  });
  expect((await pinged(monitor.url, 1)).warnings).toEqual([]);
  expect(monitor.pings.map(([path]) => path)).toEqual(['/start', '/start', '/start', '/1']);
});

test('one that answers 500 is asked three times, and that is one line each', async () => {
  const monitor = await startMonitor((response) => response.writeHead(500).end());
  const { warnings } = await pinged(monitor.url);
  expect(monitor.pings).toHaveLength(6);
  expect(warnings).toEqual([
    '--ping: 127.0.0.1 answers 500: it does not know of the start of this run',
    '--ping: 127.0.0.1 answers 500: it does not know of the end of this run',
  ]);
});

test.each([
  [404, {}, 'answers 404'],
  [301, { location: 'https://b.example/secret/x' }, 'answers 301, a redirect to https://b.example'],
])(
  'an answer that stays as it is (%i) is not asked for again, and shows no path',
  async (status, headers, why) => {
    const monitor = await startMonitor((response) => response.writeHead(status, headers).end());
    const { warnings } = await pinged(monitor.url);
    expect(monitor.pings.map(([path]) => path)).toEqual(['/start', '']);
    expect(warnings.at(-1)).toBe(`--ping: 127.0.0.1 ${why}: it does not know of the end of this run`);
  },
);

test('nobody who listens: what the system says of it, after three tries', async () => {
  const { warnings } = await pinged(`http://127.0.0.1:${await freePort()}/secret`);
  const why = 'cannot be reached (connect ECONNREFUSED 127.0.0.1)';
  expect(warnings.at(-1)).toBe(`--ping: 127.0.0.1 ${why}: it does not know of the end of this run`);
});

test(
  'one that hangs before its headers or in its body holds a run back for no more than ten seconds',
  { timeout: 60_000 },
  async () => {
    const monitors = await Promise.all([
      startMonitor(() => undefined),
      startMonitor((response) => void response.writeHead(500).write('a')),
    ]);
    for (const { ms, warnings } of await Promise.all(monitors.map(({ url }) => pinged(url)))) {
      expect(ms).toBeLessThan(15_000);
      expect(warnings.at(-1)).toMatch(
        /^--ping: 127\.0\.0\.1 (does not answer|answers 500): .* the end of this run$/,
      );
    }
  },
);

test('nothing is sent without a URL', async () => {
  expect((await pinged(undefined)).warnings).toEqual([]);
});

test.each(['hc-ping.com/secret', 'ftp://hc-ping.com/secret', 'https://ada:secret@hc-ping.com/x', 'secret'])(
  '%s is no URL to be pinged, and is not shown',
  (url) => {
    expect(() => checkPingUrl(url, '--ping')).toThrow(/^--ping: expected the http\(s\) URL of a check/);
    expect(() => checkPingUrl(url, '--ping')).not.toThrow(/secret/);
  },
);

test.each([
  ['https://a.example/key/{schedule}?create=1', 'nightly', 'https://a.example/key/nightly?create=1'],
  ['https://a.example/key/{schedule}', '../../x?y', 'https://a.example/key/------x-y'],
  ['https://a.example/key/{schedule}', undefined, undefined],
  ['https://a.example/key/{schedule}', '', undefined],
  ['https://{schedule}.example/key', 'xn--', undefined],
  ['https://a.example/uuid', 'nightly', 'https://a.example/uuid'],
  [undefined, 'nightly', undefined],
])('%s of the schedule %s is pinged at %s', (url, schedule, at) => {
  if (url !== undefined) expect(checkPingUrl(url, '--ping')).toBe(url);
  expect(pingUrlOf(url, schedule)).toBe(at);
});
