import type { SpanProcessor } from '@opentelemetry/sdk-trace-node';
import { UsageError, messageOf } from './errors.js';
import type { Logger } from './log.js';
import { VERSION } from './version.js';
import { unlessAborted } from './waiting.js';

const FLUSH_MS = 5000;

/** A process has one tracer provider, which lasts as long as it does. */
let started: ReturnType<typeof createTracing> | undefined;

/**
 * Whether traces are asked for: by an OTLP endpoint, or `OTEL_TRACES_EXPORTER=otlp`.
 * @throws {UsageError} for another exporter than `otlp` and `none`
 */
export function wantsTraces(env: NodeJS.ProcessEnv): boolean {
  const exporter = env['OTEL_TRACES_EXPORTER']?.trim() ?? '';
  if (!['', 'otlp', 'none'].includes(exporter)) {
    throw new UsageError(`OTEL_TRACES_EXPORTER ${exporter}: expected otlp or none`);
  }
  if (exporter === 'none' || env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') return false;
  const endpoints = [env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'], env['OTEL_EXPORTER_OTLP_ENDPOINT']];
  return exporter === 'otlp' || endpoints.some((endpoint) => (endpoint ?? '') !== '');
}

/**
 * Starts traces of the queues and workers of this process, unless they were started before; undefined, with nothing loaded,
 * when OpenTelemetry's variables do not ask for them.
 */
export async function startTracing(env: NodeJS.ProcessEnv, logger: Logger | undefined) {
  if (!wantsTraces(env)) return undefined;
  const { provider, telemetry } = await (started ??= createTracing(env));
  return {
    telemetry,
    /** Sends what has not been sent yet, and gives up after a few seconds. */
    stop: async () => {
      const flushed = provider.forceFlush().catch((error: unknown) => {
        logger?.warn(`the last traces could not be sent: ${messageOf(error)}`);
      });
      await unlessAborted(flushed, AbortSignal.timeout(FLUSH_MS)).catch(() => undefined);
    },
  };
}

/** What BullMQ tells of a job's content: prompts in its result, the API's words in its failure. */
const CONTENT = ['bullmq.job.result', 'bullmq.job.failed.reason', 'bullmq.job.progress'];

/** Spans tell what happened to which job, and nothing of what is in it. */
const CONTENT_REMOVER: SpanProcessor = {
  onStart: () => undefined,
  onEnd({ attributes, events }) {
    for (const of of [attributes, ...events.map((event) => event.attributes ?? {})]) {
      for (const key of CONTENT) Reflect.deleteProperty(of, key);
    }
  },
  forceFlush: () => Promise.resolve(),
  shutdown: () => Promise.resolve(),
};

async function createTracing(env: NodeJS.ProcessEnv) {
  const [sdk, { OTLPTraceExporter }, { resourceFromAttributes }, { BullMQOtel }] = await Promise.all([
    import('@opentelemetry/sdk-trace-node'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
    import('bullmq-otel'),
  ]);
  const provider = new sdk.NodeTracerProvider({
    resource: resourceFromAttributes({
      'service.name': env['OTEL_SERVICE_NAME'] || 'bulk-describe',
      'service.version': VERSION,
    }),
    // The exporter reads the endpoint and its headers from the environment itself.
    spanProcessors: [CONTENT_REMOVER, new sdk.BatchSpanProcessor(new OTLPTraceExporter())],
  });
  provider.register();
  return { provider, telemetry: new BullMQOtel({ tracerName: 'bulk-describe', version: VERSION }) };
}
