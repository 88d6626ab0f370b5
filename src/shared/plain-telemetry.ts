import type { Attributes, Span, Telemetry } from 'bullmq';

/** What BullMQ would tell of a job's content: prompts in its result, the API's words in its failure. */
const CONTENT = new Set(['bullmq.job.result', 'bullmq.job.failed.reason', 'bullmq.job.progress']);

/** The same telemetry, whose spans tell what happened to which job, and nothing of what is in it. */
export function plainTelemetry(telemetry: Telemetry): Telemetry {
  const { tracer, contextManager } = telemetry;
  return {
    contextManager,
    tracer: {
      startSpan: (name, options, context: unknown) => plainSpan(tracer.startSpan(name, options, context)),
    },
  };
}

function plainSpan(span: Span): Span {
  return {
    setSpanOnContext: (context: unknown): unknown => span.setSpanOnContext(context),
    setAttribute: (key, value) => {
      if (!CONTENT.has(key)) span.setAttribute(key, value);
    },
    setAttributes: (attributes) => span.setAttributes(withoutContent(attributes)),
    addEvent: (name, attributes) => span.addEvent(name, attributes && withoutContent(attributes)),
    recordException: (exception, time) => span.recordException(exception, time),
    end: () => span.end(),
  };
}

function withoutContent(attributes: Attributes): Attributes {
  return Object.fromEntries(Object.entries(attributes).filter(([key]) => !CONTENT.has(key)));
}
