import { readFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { judgeSubmitFailure, type SubmitVerdict } from '../../src/describe-api/attempt-policy.js';
import { DescribeClient } from '../../src/describe-api/client.js';
import { UsageError } from '../../src/shared/errors.js';
import { answering, serve } from './http-server.js';

const ACCEPTED = { success: true, messageId: 'm1' };

/** Submits once. @returns the message's id, or the verdict on the failure */
async function submitTo(baseUrl: string): Promise<string | SubmitVerdict> {
  const client = new DescribeClient({ baseUrl, timeoutMs: 5000 });
  try {
    return (await client.submit({ url: 'https://a.example/1.jpg' })).messageId;
  } catch (error) {
    return judgeSubmitFailure(error);
  } finally {
    await client.close();
  }
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const address: AddressInfo | string | null = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function expectUnreachable(outcome: string | SubmitVerdict, words: RegExp): void {
  if (typeof outcome === 'string') throw new Error('it was submitted');
  expect(outcome).toMatchObject({ action: 'retry-free', countsAsDown: true });
  expect(outcome.reason).toMatch(words);
}

afterEach(() => vi.unstubAllEnvs());

describe('no connection is said in words', () => {
  test('a port at which nothing listens', async () => {
    const server = createHttpServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address: AddressInfo | string | null = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await new Promise((resolve) => server.close(resolve));
    const words = new RegExp(
      `^nothing listens at 127.0.0.1:${port}: is the server running, and is --api right`,
    );
    expectUnreachable(await submitTo(`http://127.0.0.1:${port}`), words);
  });

  test('a host that does not exist', async () => {
    const words =
      /^(there is no host|no name server answers for) describe\.invalid: is (--api right|this machine)/;
    expectUnreachable(await submitTo('https://describe.invalid/v2'), words);
  });

  test('a certificate of an authority of one’s own', async () => {
    const pem = readFileSync(new URL('../fixtures/self-signed.pem', import.meta.url));
    const port = await listen(createTlsServer({ key: pem, cert: pem }, answering(200, ACCEPTED)));
    const words = new RegExp(`^the certificate of localhost:${port} is not trusted: NODE_EXTRA_CA_CERTS=`);
    expectUnreachable(await submitTo(`https://localhost:${port}`), words);
  });

  test('a server that speaks no TLS', async () => {
    const { url } = await serve(answering(200, ACCEPTED));
    const words = /does not speak TLS: http:\/\/ in place of https:\/\/\?/;
    expectUnreachable(await submitTo(url.replace('http:', 'https:')), words);
  });
});

describe('a proxy', () => {
  /** One that tunnels every host to a server of the test's own, or answers with a status. */
  async function proxyTo(apiUrl: string, status?: number) {
    const tunnels: string[] = [];
    const proxy = createHttpServer();
    proxy.on('connect', (request, socket) => {
      tunnels.push(request.url ?? '');
      if (status !== undefined) {
        socket.end(`HTTP/1.1 ${status} No\r\n\r\n`);
        return;
      }
      const upstream = connect(Number(new URL(apiUrl).port), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        upstream.pipe(socket).pipe(upstream);
      });
      socket.on('error', () => upstream.destroy());
      onTestFinished(() => void upstream.destroy());
    });
    return { url: `http://127.0.0.1:${await listen(proxy)}`, tunnels };
  }

  test('of the environment is used, but not for this machine, nor for what NO_PROXY names', async () => {
    const api = await serve(answering(200, ACCEPTED));
    const proxy = await proxyTo(api.url);
    vi.stubEnv('HTTP_PROXY', proxy.url);
    expect(await submitTo('http://describe.invalid/v2')).toBe('m1');
    expect(await submitTo(api.url)).toBe('m1');
    expect(proxy.tunnels).toEqual(['describe.invalid:80']);
    vi.stubEnv('NO_PROXY', 'describe.invalid');
    expectUnreachable(await submitTo('http://describe.invalid/v2'), /describe\.invalid/);
    expect(proxy.tunnels).toHaveLength(1);
  });

  test('that refuses is named with its status', async () => {
    const api = await serve(answering(200, ACCEPTED));
    const { url } = await proxyTo(api.url, 407);
    vi.stubEnv('HTTPS_PROXY', url);
    const words = /^the proxy answers 407: is HTTPS_PROXY or HTTP_PROXY right.*NO_PROXY=describe\.invalid/;
    expectUnreachable(await submitTo('https://describe.invalid/v2'), words);
  });

  test('that is not there is told from an API that is not there', async () => {
    vi.stubEnv('HTTPS_PROXY', 'http://127.0.0.1:1');
    const words = /^nothing listens at 127\.0\.0\.1:1: .*are HTTPS_PROXY and HTTP_PROXY right\?/;
    expectUnreachable(await submitTo('https://describe.invalid/v2'), words);
  });

  test.each([
    ['is no URL', 'user:secret@proxy:3128'],
    ['speaks SOCKS', 'socks5://user:secret@proxy:1080'],
  ])('that %s is refused, without its value', (_what, proxy) => {
    vi.stubEnv('HTTPS_PROXY', proxy);
    const open = () => new DescribeClient({ baseUrl: 'https://describe.invalid' });
    expect(open).toThrow(UsageError);
    expect(open).toThrow(
      /^HTTPS_PROXY: expected the proxy's URL, such as http:\/\/proxy\.example\.com:3128$/,
    );
  });
});
