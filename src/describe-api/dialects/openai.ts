import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import {
  type ApiCall,
  RejectedError,
  ResponseShapeError,
  SetUpError,
  UnreadableAnswerError,
} from '../errors.js';
import { exhaustedForMs } from '../retry-after.js';
import { reasonIn, refSchema, type Submitted } from '../shapes.js';
import { type ModelAnswer, answeredPrompts, isRefusal, withoutThoughts } from './answered-prompts.js';
import { type Dialect, type DialectSettings, bearer } from './dialect.js';

/** What a model is asked where no other prompt is given. */
const DEFAULT_PROMPT = `Write four different prompts for a text-to-image model, each of which would make a picture like this one.
Each prompt is one line of 20 to 60 words: the subject first, then setting, composition, medium or style (name artists or
movements where they fit), light, colours and mood. Do not number them and do not mention that there is an image.
End each prompt with --ar W:H, the picture's aspect ratio in small whole numbers.
Answer with a JSON list of exactly four strings and nothing else.`;

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
});

const errorSchema = z.object({
  error: z.object({
    code: z.union([z.string(), z.number()]).nullish(),
    type: z.string().nullish().catch(null),
  }),
});

function endpointOf(base: string): string {
  const root = base.replace(/\/chat\/completions$/, '');
  // Some services have the version elsewhere in their path: /v1beta/openai.
  const hasVersion = new URL(root).pathname.split('/').some((segment) => /^v\d/.test(segment));
  return `${root}${hasVersion ? '' : '/v1'}/chat/completions`;
}

type Choice = z.infer<typeof completionSchema>['choices'][number];

const CUT: ReadonlySet<unknown> = new Set(['length', 'max_tokens', 'content_filter', 'error']);

function answerIn({ message, finish_reason: reason }: Choice): ModelAnswer {
  return { text: withoutThoughts(message.content ?? ''), isCut: CUT.has(reason) };
}

/** Why there are no four prompts in an answer. */
function unreadable(
  choices: readonly Choice[],
  answers: readonly ModelAnswer[],
  asked: number,
  call: ApiCall,
): Error {
  if (choices.length < asked) {
    const how = `the server ignores --choices ${asked} (answers that came: ${choices.length})`;
    return new SetUpError(call, `${how}: leave --choices away`);
  }
  const said = answers
    .map(({ text }) => text)
    .join('\n')
    .trim();
  const isFor = (what: string) => choices.some(({ finish_reason: reason }) => reason === what);
  if (isFor('content_filter')) {
    const reason = `the content filter stopped the answer${said === '' ? '' : `: ${said}`}`;
    return new RejectedError(call, { status: 200, reason, about: 'image' });
  }
  // Thoughts are worth keeping where there is nothing else.
  const answer = said || choices.map(({ message }) => message.content ?? '').join('\n');
  return new UnreadableAnswerError(call, { answer, isRefusal: isRefusal(said), isCut: isFor('length') });
}

function readCompletion(body: unknown, call: ApiCall, { choices: asked = 1 }: DialectSettings): Submitted {
  const error = errorSchema.safeParse(body);
  const completion = completionSchema.safeParse(body);
  if (!completion.success) {
    if (error.success)
      throw new RejectedError(call, { status: 200, reason: reasonIn(body) ?? 'refused without a reason' });
    throw new ResponseShapeError(call, 'a chat completion', body);
  }
  const { choices, id } = completion.data;
  const refusal = choices.map(({ message }) => message.refusal).find((text) => text);
  if (refusal) {
    throw new RejectedError(call, { status: 200, reason: `the model refuses: ${refusal}`, about: 'image' });
  }
  const answers = choices.map(answerIn);
  // Where the format of the answer is asked for (structured output), it is read here, before anything is guessed.
  const prompts = answeredPrompts(answers);
  if (prompts === undefined) throw unreadable(choices, answers, asked, call);
  const messageId = id ?? `completion-${randomUUID()}`;
  return { messageId, completed: { status: 'completed', messageId, prompts } };
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
  credentials: bearer,
  isTokenOptional: true,
  takesModel: true,
  submitBody: ({ url }, { model, prompt = DEFAULT_PROMPT, choices = 1 }) => ({
    model,
    ...(choices > 1 && { n: choices }),
    messages: [
      {
        role: 'user',
        content: [
          { type: 'text', text: prompt },
          { type: 'image_url', image_url: { url } },
        ],
      },
    ],
  }),
  readSubmitted: readCompletion,
  statusIn: (body) => {
    const code = Number(errorSchema.safeParse(body).data?.error.code);
    return Number.isInteger(code) && code >= 400 && code <= 599 ? code : undefined;
  },
  isQuota: (body) => {
    const error = errorSchema.safeParse(body).data?.error;
    return [error?.code, error?.type].some(
      (word) => word === 'insufficient_quota' || word === 'billing_hard_limit_reached',
    );
  },
  isNotFoundSetUp: true,
  restMs: exhaustedForMs,
} as const satisfies Dialect;
