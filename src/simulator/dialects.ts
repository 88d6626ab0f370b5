import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { LimitView } from './limits.js';
import { type SimulatedMessage, madeUp, schemaInWords } from './messages.js';

/** Why a call is not answered with what it asks for: the status of most dialects, and the words. */
const REFUSALS = {
  invalid: [400, ''],
  token: [401, 'The token is not valid'],
  rateLimited: [429, 'Too many requests'],
  quota: [402, 'Your account has no credits left'],
  reject: [200, "Invalid phrase: 'simulated'"],
  reject400: [400, 'The image could not be downloaded'],
  noUrls: [400, 'Invalid image_url: it has to be base64 data'],
  noSchema: [400, 'response_format: json_schema is not supported'],
  noFormat: [400, 'response_format is not supported'],
  /** A message that the API does not know. */
  missing: [404, 'Message not found'],
  http500: [500, 'Internal Server Error'],
} as const;

export type Refusal = keyof typeof REFUSALS;

/** A refusal in a dialect's words. */
export function refusalIn(dialect: SimulatedDialect, why: Refusal, text: string = REFUSALS[why][1]) {
  return dialect.refusal(why, text, REFUSALS[why][0]);
}

/** One dialect as the simulator speaks it: paths, credentials and the words of each answer. */
export interface SimulatedDialect {
  /** Paths that take a submit by POST; `getPaths`, those that take one by GET as well. */
  readonly submitPaths: readonly string[];
  readonly getPaths?: readonly string[];
  /** It takes images in base64 as well, as `data:` URIs. */
  readonly takesData?: boolean;
  /** Its messages. None: the answer to a submit is the outcome, after the latency. */
  readonly messages?: {
    /** With `:id`. */
    readonly paths: readonly string[];
    /** Paths that take a list of `ids` by POST. */
    readonly listPaths?: readonly string[];
    polled(message: SimulatedMessage): object;
    /** What a webhook is sent. */
    delivered(message: SimulatedMessage): object;
  };
  tokenOf(request: FastifyRequest): unknown;
  /** A submit's `url`, `ref`, `webhook` and `asked` (what a model is asked for), whatever the dialect calls them. */
  readSubmit(body: unknown): object;
  accepted(message: SimulatedMessage, asked: Asked | undefined): object;
  /** @param status that of most dialects */
  refusal(why: Refusal, text: string, status: number): { readonly status: number; readonly body: object };
  limitHeaders?(limit: LimitView): Record<string, string>;
}

/** What a model is asked for. */
export interface Asked {
  readonly choices?: unknown;
  /** The `type` of its `response_format`. */
  readonly format?: string | undefined;
  /** A JSON Schema of its answer. */
  readonly schema?: unknown;
}

const FAILED = 'Simulated: the job has failed';

const objectSchema = z.looseObject({});

/** A field of a body or a query; undefined when there is none. */
function fieldOf(body: unknown, name: string): unknown {
  return objectSchema.safeParse(body).data?.[name];
}

/** The token of an `Authorization: Bearer` header. */
function bearerOf(request: FastifyRequest): string | undefined {
  return /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** The submit of the dialects that have refs. */
function refedSubmit(body: unknown): object {
  return {
    url: fieldOf(body, 'url'),
    ref: fieldOf(body, 'ref'),
    webhook: fieldOf(body, 'webhookOverride'),
  };
}

const thenextleg: SimulatedDialect = {
  submitPaths: ['/v2/describe'],
  getPaths: ['/v2/describe'],
  messages: {
    paths: ['/v2/message/:id'],
    polled: (message) => {
      const { id, state, progress } = message;
      if (state === 'failed') return { progress: 'incomplete' };
      if (state === 'completed') return { progress: 100, ...describedMessage(message) };
      const image = `https://simulator.invalid/progress/${id}-${progress}.webp`;
      return { progress, progressImageUrl: progress === 0 ? null : image };
    },
    delivered: describedMessage,
  },
  tokenOf: (request) => bearerOf(request) ?? fieldOf(request.query, 'authToken'),
  readSubmit: refedSubmit,
  accepted: ({ id, submittedAt }) => ({ success: true, messageId: id, createdAt: submittedAt }),
  refusal: (_why, msg, status) => ({ status, body: { success: false, msg } }),
};

/** A completed message of `thenextleg` without its `progress`. */
function describedMessage({ id, ref, prompts, submittedAt, completedAt }: SimulatedMessage): object {
  return {
    createdAt: submittedAt,
    originatingMessageId: id,
    content: prompts,
    ref,
    type: 'describe',
    responseAt: completedAt,
  };
}

function imagineproMessage(message: SimulatedMessage): object {
  const { id, ref, state, progress, submittedAt, completedAt } = message;
  const created = { messageId: id, createdAt: submittedAt, ref };
  if (state === 'working') return { ...created, status: progress === 0 ? 'QUEUED' : 'PROCESSING', progress };
  if (state === 'failed') return { ...created, status: 'FAIL', error: FAILED, updatedAt: completedAt };
  return { ...created, status: 'DONE', progress: 100, content: message.prompts, updatedAt: completedAt };
}

const imaginepro: SimulatedDialect = {
  submitPaths: ['/api/v1/midjourney/describe', '/api/v1/nova/describe'],
  messages: {
    paths: ['/api/v1/midjourney/message/:id', '/api/v1/message/fetch/:id'],
    polled: imagineproMessage,
    delivered: imagineproMessage,
  },
  tokenOf: bearerOf,
  readSubmit: refedSubmit,
  accepted: ({ id, submittedAt }) => ({ success: 'PROCESSING', messageId: id, createdAt: submittedAt }),
  refusal: (why, error, status) => ({
    status: why === 'quota' ? 403 : status,
    body: { success: false, error },
  }),
};

function legnextJob(message: SimulatedMessage): object {
  const { id, state, progress, submittedAt, completedAt } = message;
  const isDone = state === 'completed';
  const workingStatus = progress < 10 ? 'pending' : progress < 20 ? 'staged' : 'processing';
  const prompts = isDone ? message.prompts : [];
  const promptEn = prompts.join('\n\n');
  const failure = state === 'failed' ? FAILED : '';
  return {
    job_id: id,
    model: 'midjourney',
    task_type: 'describe',
    status: state === 'working' ? workingStatus : state,
    output: { promptEn, description: promptEn, finalPrompt: promptEn, prompts },
    meta: { created_at: submittedAt, started_at: '', ended_at: isDone ? completedAt : '' },
    detail: null,
    logs: [],
    error: { code: failure === '' ? 0 : 10_000, raw_message: failure, message: failure, detail: null },
  };
}

const legnext: SimulatedDialect = {
  submitPaths: ['/api/v1/describe'],
  messages: { paths: ['/api/v1/job/:id'], polled: legnextJob, delivered: legnextJob },
  tokenOf: ({ headers }) => headers['x-api-key'],
  readSubmit: (body) => ({ url: fieldOf(body, 'imgUrl'), webhook: fieldOf(body, 'callback') }),
  accepted: legnextJob,
  refusal: (why, message, status) => {
    // A refusal can come with HTTP 200: the body's code is what counts.
    const code = why === 'reject' ? 400 : status;
    return { status, body: { code, message, raw_message: message, detail: null } };
  },
};

const completionSchema = z.object({
  // Without a model there is no completion, whatever the image.
  model: z.string(),
  n: z.unknown().optional(),
  response_format: z
    .object({ type: z.string(), json_schema: z.object({ schema: z.unknown() }).optional() })
    .optional(),
  messages: z.array(
    z.object({
      content: z.union([
        z.string().transform((text) => [{ text, image_url: undefined }]),
        z.array(
          z.object({ text: z.string().optional(), image_url: z.object({ url: z.string() }).optional() }),
        ),
      ]),
    }),
  ),
});

/** The image among the parts of all messages, and what is asked for. */
function readCompletionRequest(body: unknown): object {
  const request = completionSchema.safeParse(body).data;
  const parts = request?.messages.flatMap(({ content }) => content) ?? [];
  const { type: format, json_schema: given } = request?.response_format ?? {};
  const schema = given?.schema ?? schemaInWords(parts.map(({ text = '' }) => text).join('\n'));
  return {
    url: parts.find((part) => part.image_url !== undefined)?.image_url?.url,
    asked: { choices: request?.n, format, schema },
  };
}

/** As a model answers: fenced, unless it is held to JSON. */
function answersOf(
  prompts: readonly string[],
  { choices, format, schema }: Partial<Asked> = {},
): readonly string[] {
  if (choices === 4) return prompts;
  if (schema === undefined && format === undefined)
    return [`\`\`\`json\n${JSON.stringify(prompts, null, 2)}\n\`\`\``];
  return [JSON.stringify(schema === undefined ? { prompts } : madeUp(schema, prompts))];
}

/** Synchronous: no messages, no webhooks. */
const openai: SimulatedDialect = {
  submitPaths: ['/v1/chat/completions'],
  takesData: true,
  tokenOf: bearerOf,
  readSubmit: readCompletionRequest,
  accepted: ({ id, state, submittedAt, prompts: numbered }, asked) => {
    const isCut = state === 'failed';
    // Without their keycaps: a model does not number like this.
    const prompts = numbered.map((prompt) => prompt.replace(/^\d\uFE0F\u20E3 /u, ''));
    const texts = answersOf(prompts, asked);
    return {
      id,
      object: 'chat.completion',
      created: Math.floor(Date.parse(submittedAt) / 1000),
      model: 'simulator',
      choices: texts.map((text, index) => ({
        index,
        message: { role: 'assistant', content: isCut ? text.slice(0, 40) : text, refusal: null },
        logprobs: null,
        finish_reason: isCut ? 'length' : 'stop',
      })),
      usage: { prompt_tokens: 850, completion_tokens: 240, total_tokens: 1090 },
    };
  },
  refusal: (why, message, usual) => {
    const status = why === 'quota' ? 429 : why === 'reject' ? 400 : usual;
    const code = why === 'quota' ? 'insufficient_quota' : why;
    return { status, body: { error: { message, type: 'invalid_request_error', param: null, code } } };
  },
  limitHeaders: ({ remaining, waitMs }) => ({
    'x-ratelimit-remaining-requests': String(remaining),
    'x-ratelimit-reset-requests': waitMs < 1000 ? `${Math.ceil(waitMs)}ms` : `${(waitMs / 1000).toFixed(3)}s`,
  }),
};

function mjTask(message: SimulatedMessage): object {
  const { id, state, progress, submittedAt, completedAt } = message;
  const isDone = state === 'completed';
  const workingStatus = progress === 0 ? 'SUBMITTED' : 'IN_PROGRESS';
  const finalPrompt = isDone ? message.prompts.join('\n\n') : '';
  return {
    id,
    action: 'DESCRIBE',
    status: state === 'working' ? workingStatus : isDone ? 'SUCCESS' : 'FAILURE',
    progress: state === 'working' ? `${progress}%` : '100%',
    prompt: '',
    promptEn: finalPrompt,
    failReason: state === 'failed' ? FAILED : '',
    submitTime: Date.parse(submittedAt),
    finishTime: state === 'working' ? 0 : Date.parse(completedAt),
    properties: { finalPrompt },
  };
}

/** As a gateway has it before the proxy: the proxy's own words are an HTTP 200 with a code. */
const mj: SimulatedDialect = {
  submitPaths: ['/mj/submit/describe', '/mj-fast/mj/submit/describe'],
  takesData: true,
  messages: {
    paths: ['/mj/task/:id/fetch', '/mj-fast/mj/task/:id/fetch'],
    listPaths: ['/mj/task/list-by-condition', '/mj-fast/mj/task/list-by-condition'],
    polled: mjTask,
    delivered: mjTask,
  },
  tokenOf: (request) => bearerOf(request) ?? request.headers['mj-api-secret'],
  readSubmit: (body) => ({
    url: fieldOf(body, 'link') ?? fieldOf(body, 'base64'),
    webhook: fieldOf(body, 'notifyHook'),
  }),
  accepted: ({ id }) => ({ code: 1, description: 'Submit success', result: id, properties: {} }),
  refusal: (why, text, usual) => {
    if (why === 'reject') return { status: 200, body: { code: 24, description: text, properties: {} } };
    const said = why === 'quota' ? 'quota_not_enough' : why === 'missing' ? 'task_no_found' : text;
    const status = why === 'quota' || why === 'missing' ? 400 : usual;
    const code = why === 'rateLimited' ? 30 : 4;
    return { status, body: { description: said, type: 'upstream_error', code } };
  },
};

/** All are spoken on one port: their paths tell them apart. */
export const SIMULATED_DIALECTS: readonly SimulatedDialect[] = [thenextleg, imaginepro, legnext, openai, mj];
