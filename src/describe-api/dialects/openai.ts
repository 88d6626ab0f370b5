import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { AnswerValue } from '../../shared/jobs.js';
import { parseJson } from '../../shared/parse-json.js';
import { type AnswerShape, promptsShape } from '../answer-shape.js';
import {
  type ApiCall,
  RejectedError,
  ResponseShapeError,
  SetUpError,
  UnreadableAnswerError,
} from '../errors.js';
import { reasonIn } from '../refusals.js';
import { exhaustedForMs } from '../retry-after.js';
import {
  type ModelAnswer,
  REFUSING_PROMPT,
  answeredPrompts,
  firstPrompts,
  isRefusal,
  wholePrompt,
  withoutThoughts,
} from './answered-prompts.js';
import {
  type AnswerFormat,
  type Dialect,
  type DialectSettings,
  type SubmitRequest,
  type Submitted,
} from './dialect.js';
import { failingStatusSchema, refSchema } from './polled.js';

export const FOUR_PROMPTS = promptsShape(4);
/** Of several answers each is a prompt as it stands. */
const ONE_OF_SEVERAL = {
  prompt: promptsShape(1).prompt,
  inWords: 'Answer with the prompt and nothing else.',
};

const completionSchema = z.object({
  id: refSchema,
  choices: z
    .array(
      z.object({
        finish_reason: z.string().nullish().catch(undefined),
        message: z.object({
          content: z
            .union([
              z.string(),
              z
                .array(z.object({ type: z.string().catch('text'), text: z.string().catch('') }))
                .transform((parts) =>
                  parts.map(({ type, text }) => (/think|reason/.test(type) ? '' : text)).join(''),
                ),
            ])
            .nullish(),
          refusal: z.string().nullish().catch(undefined),
        }),
      }),
    )
    .min(1),
  usage: z
    .object({ prompt_tokens: z.number(), completion_tokens: z.number() })
    .transform((usage) => ({ inputTokens: usage.prompt_tokens, outputTokens: usage.completion_tokens }))
    .optional()
    .catch(undefined),
});

const textsSchema = z.array(z.string());

type Completion = z.infer<typeof completionSchema>;

const errorSchema = z.object({
  error: z.object({
    code: z.union([z.string(), z.number()]).nullish(),
    type: z.string().nullish().catch(null),
  }),
});

function endpointOf(base: string): string {
  // The whole of it, as for a deployment of Azure's, which has no version.
  if (base.endsWith('/chat/completions')) return base;
  // Some services have the version elsewhere in their path: /v1beta/openai.
  const hasVersion = new URL(base).pathname.split('/').some((segment) => /^v\d/.test(segment));
  return `${base}${hasVersion ? '' : '/v1'}/chat/completions`;
}

const CUT: ReadonlySet<unknown> = new Set(['length', 'max_tokens', 'content_filter', 'error']);

function answerIn({ message, finish_reason: reason }: Completion['choices'][number]): ModelAnswer {
  return { text: withoutThoughts(message.content ?? ''), isCut: CUT.has(reason) };
}

/** The one JSON value that an answer consists of, fenced or with talk around it. */
function jsonOf(text: string): unknown {
  const [, object] = /^[^{]*(\{.*\})[^}]*$/s.exec(text) ?? [];
  const value = parseJson(text) ?? parseJson(object ?? '');
  return Array.isArray(value) ? { prompts: value } : value;
}

/** What an answer holds for each column: as it was asked for, else as four prompts without doubt, or one. */
function valuesIn(answers: readonly ModelAnswer[], shape: AnswerShape): ReturnType<AnswerShape['read']> {
  const [first, ...more] = answers;
  const json = first === undefined || more.length > 0 ? undefined : jsonOf(first.text);
  const found = json === undefined ? { wrong: 'it was no JSON object' } : shape.read(json);
  if (shape.prompts === undefined) return found;
  const asked = 'values' in found ? textsSchema.safeParse(found.values).data : undefined;
  const prompts = firstPrompts(asked, shape.prompts, REFUSING_PROMPT) ?? guessed(answers, shape.prompts);
  if (prompts !== undefined) return { values: prompts };
  return 'wrong' in found ? found : { wrong: 'these were no prompts' };
}

function guessed(answers: readonly ModelAnswer[], count: number): readonly string[] | undefined {
  if (count === 4) return answeredPrompts(answers);
  const [only] = answers;
  return count === 1 && only !== undefined ? wholePrompt(only) : undefined;
}

/** The values in an answer that was kept, if there are any by now. @param isCut whether it breaks off */
export function readKeptAnswer(
  text: string,
  isCut: boolean,
  shape: AnswerShape,
): readonly AnswerValue[] | undefined {
  const found = valuesIn([{ text: withoutThoughts(text), isCut }], shape);
  return 'values' in found ? found.values : undefined;
}

function unreadable(
  { choices, usage }: Completion,
  answers: readonly ModelAnswer[],
  { answer: shape = FOUR_PROMPTS, choices: asked = 1 }: DialectSettings,
  wrong: string,
  call: ApiCall,
): Error {
  // One that leaves out some of them does so for this image.
  if (asked > 1 && choices.length === 1) {
    const how = `the server ignores --choices ${asked} (answers that came: 1)`;
    return new SetUpError(call, `${how}: leave --choices away`);
  }
  const said = answers
    .map(({ text }) => text)
    .join('\n')
    .trim();
  const isFor = (what: string) => choices.some(({ finish_reason: reason }) => reason === what);
  if (isFor('content_filter')) {
    const reason = `the content filter stopped the answer${said === '' ? '' : `: ${said}`}`;
    return new RejectedError(call, { status: 200, reason, about: 'image', usage });
  }
  const isTooLong = isFor('length') || isFor('max_tokens');
  const cutOff = isTooLong ? 'at the length limit' : isFor('error') ? 'by an error' : undefined;
  return new UnreadableAnswerError(call, {
    // Thoughts are worth keeping where there is nothing else.
    answer: said || choices.map(({ message }) => message.content ?? '').join('\n'),
    isRefusal: cutOff === undefined && isRefusal(said),
    cutOff,
    expected: shape.expected,
    wrong,
    usage,
  });
}

function readCompletion(body: unknown, call: ApiCall, settings: DialectSettings): Submitted {
  const error = errorSchema.safeParse(body);
  const completion = completionSchema.safeParse(body);
  if (!completion.success) {
    if (error.success)
      throw new RejectedError(call, { status: 200, reason: reasonIn(body) ?? 'refused without a reason' });
    throw new ResponseShapeError(call, 'a chat completion', body);
  }
  const { choices, id, usage } = completion.data;
  const refusal = choices.map(({ message }) => message.refusal).find((text) => text);
  if (refusal) {
    const reason = `the model refuses: ${refusal}`;
    throw new RejectedError(call, { status: 200, reason, about: 'image', usage });
  }
  const answers = choices.map(answerIn);
  const found = valuesIn(answers, settings.answer ?? FOUR_PROMPTS);
  if ('wrong' in found) throw unreadable(completion.data, answers, settings, found.wrong, call);
  const messageId = id ?? `completion-${randomUUID()}`;
  return { messageId, completed: { status: 'completed', messageId, prompts: found.values, usage } };
}

/** `response_format`, for servers that have it. */
function formatOf({ schema, isStrict }: AnswerShape, format: AnswerFormat) {
  switch (format) {
    case 'json_schema':
      return { type: format, json_schema: { name: 'answer', strict: isStrict, schema } };
    case 'json_object':
      return { type: format };
    case 'words':
      return undefined;
  }
}

function completionRequest(
  { url, prompt: ofImage, wrong }: SubmitRequest,
  { model, prompt, system, choices = 1, answer = FOUR_PROMPTS, format, params }: DialectSettings,
): Record<string, unknown> {
  const { detail, ...more } = params ?? {};
  const asked = choices > 1 ? ONE_OF_SEVERAL : answer;
  const corrected =
    wrong === undefined ? [] : [`Your last answer to this could not be used: ${wrong}. Answer again.`];
  const responseFormat = choices > 1 ? undefined : formatOf(answer, format ?? 'json_schema');
  return {
    model,
    ...(choices > 1 && { n: choices }),
    ...(responseFormat !== undefined && { response_format: responseFormat }),
    messages: [
      ...(system === undefined ? [] : [{ role: 'system', content: system }]),
      {
        role: 'user',
        content: [
          { type: 'text', text: [ofImage ?? prompt ?? asked.prompt, asked.inWords, ...corrected].join('\n') },
          { type: 'image_url', image_url: { url, ...(detail !== undefined && { detail }) } },
        ],
      },
    ],
    ...more,
  };
}

/**
 * Chat completions with an image, as OpenAI has them and vLLM, Ollama, LM Studio and many hosts imitate them.
 * Synchronous: the answer to a submit is the outcome.
 */
export const openai = {
  name: 'openai',
  hosts: [
    'api.openai.com',
    'openrouter.ai',
    'api.mistral.ai',
    'api.groq.com',
    'generativelanguage.googleapis.com',
  ],
  api: 'https://api.openai.com/v1',
  submitUrl: endpointOf,
  isTokenOptional: true,
  takesModel: true,
  takesData: true,
  submitBody: completionRequest,
  readSubmitted: readCompletion,
  statusIn: (body) => failingStatusSchema.safeParse(errorSchema.safeParse(body).data?.error.code).data,
  isQuota: (body) => {
    const error = errorSchema.safeParse(body).data?.error;
    return [error?.code, error?.type].some(
      (word) => word === 'insufficient_quota' || word === 'billing_hard_limit_reached',
    );
  },
  isNotFoundSetUp: true,
  restMs: exhaustedForMs,
} as const satisfies Dialect;
