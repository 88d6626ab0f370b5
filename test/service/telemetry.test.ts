import { once } from 'node:events';
import { type IncomingMessage, createServer } from 'node:http';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { wantsTraces } from '../../src/shared/telemetry.js';
import { startSimulator } from '../helpers/simulator.js';
import { runCli } from '../helpers/cli.js';
import { describeOnRedis, embeddedFixture } from '../helpers/queues.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { LIMITS, ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

const exportSchema = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: z.array(z.object({ key: z.string(), value: z.unknown() })) }),
      scopeSpans: z.array(z.object({ spans: z.array(z.object({ name: z.string(), traceId: z.string() })) })),
    }),
  ),
});

/** Takes traces as OTLP over HTTP in JSON. */
async function startCollector() {
  const bodies: string[] = [];
  const read = async (request: IncomingMessage) => {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    if (request.url === '/v1/traces') bodies.push(body);
  };
  const server = createServer((request, response) => {
    void read(request).then(() => response.writeHead(200, { 'content-type': 'application/json' }).end('{}'));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { url: `http://127.0.0.1:${address.port}`, bodies };
}

describe('OpenTelemetry', () => {
  test.each<[NodeJS.ProcessEnv, boolean]>([
    [{}, false],
    [{ OTEL_SERVICE_NAME: 'x' }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' }, true],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://c:4318/v1/traces' }, true],
    [{ OTEL_TRACES_EXPORTER: 'otlp' }, true],
    [{ OTEL_TRACES_EXPORTER: 'none', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' }, false],
    [{ OTEL_SDK_DISABLED: 'true', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' }, false],
  ])('with %j traces are wanted: %j', (env, expected) => {
    expect(wantsTraces(env)).toBe(expected);
  });

  test('sends the spans of a run, with the name of the service, without prompts and without the token', async () => {
    const collector = await startCollector();
    const workspace = await Workspace.create();
    const queue = await embeddedFixture();
    const simulator = await startSimulator({ latencyMs: 30, token: 'secret-token' });
    onTestFinished(async () => {
      await simulator.close();
      await queue.cleanup();
      await workspace.remove();
    });
    await workspace.write('m.csv', manifestOf(3));
    const limits = ['--rate', '100/s', '--poll-rate', '100/s'];
    const end = await runCli(['run', 'm.csv', '--api', simulator.url, '--queue', queue.url, ...limits], {
      cwd: workspace.path,
      env: {
        DESCRIBE_API_TOKEN: 'secret-token',
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        OTEL_SERVICE_NAME: 'captions',
      },
    });
    expect([end.code, end.stderr]).toEqual([0, expect.not.stringMatching(/defect|traces/)]);
    const exported = collector.bodies.map((body) => exportSchema.parse(JSON.parse(body)));
    const resources = exported.flatMap(({ resourceSpans }) => resourceSpans);
    for (const { resource } of resources) {
      expect(resource.attributes).toContainEqual({ key: 'service.name', value: { stringValue: 'captions' } });
    }
    const names = resources.flatMap(({ scopeSpans }) =>
      scopeSpans.flatMap(({ spans }) => spans.map(({ name }) => name)),
    );
    expect(names.filter((name) => name.startsWith('process describe@'))).toHaveLength(3);
    expect(names.some((name) => name.startsWith('addBulk describe@'))).toBe(true);
    const all = collector.bodies.join('\n');
    expect(all).not.toContain('secret-token');
    const [row] = await workspace.records('m.prompts.csv');
    expect(row?.['prompt_1']?.length).toBeGreaterThan(10);
    expect(all).not.toContain(row?.['prompt_1']?.slice(0, 10));
  });
});

describeOnRedis('OpenTelemetry of several processes', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  test('shows in one trace what a run asks for and what a worker elsewhere does, without the token', async () => {
    const collector = await startCollector();
    const telemetry = (name: string) => ({
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_SERVICE_NAME: name,
      DESCRIBE_API_TOKEN: 'secret-token',
    });
    await fixture.workspace.write('m.csv', manifestOf(3));
    const worker = fixture.service.start('worker', LIMITS, telemetry('a-worker'));
    await untilSaid(worker, /limits of the account/);
    const run = fixture.service.start('run', ['m.csv', '-o', 'out.csv', '--no-work'], telemetry('a-run'));
    expect((await run.ended).code).toBe(0);
    worker.child.kill('SIGTERM');
    const end = await worker.ended;
    expect([end.code, end.stderr]).toEqual([0, expect.not.stringMatching(/defect|traces/)]);

    const spans = collector.bodies.flatMap((body) =>
      exportSchema.parse(JSON.parse(body)).resourceSpans.flatMap(({ resource, scopeSpans }) => {
        const name = resource.attributes.find(({ key }) => key === 'service.name')?.value;
        const service = z.object({ stringValue: z.string() }).parse(name).stringValue;
        return scopeSpans.flatMap((scope) => scope.spans.map((span) => ({ ...span, service })));
      }),
    );
    const of = (service: string, name: string) =>
      spans.filter((span) => span.service === service && span.name.startsWith(name));
    const described = of('a-worker', 'process describe@');
    expect(described).toHaveLength(3);
    expect(of('a-run', 'process describe@')).toEqual([]);
    expect(of('a-run', 'process results@').length).toBeGreaterThan(0);
    const asked = new Set(of('a-run', 'addBulk describe@').map(({ traceId }) => traceId));
    expect(described.filter(({ traceId }) => !asked.has(traceId))).toEqual([]);
    expect(collector.bodies.join('\n')).not.toContain('secret-token');
  });
});
