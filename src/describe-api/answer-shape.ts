import { z } from 'zod';
import { UsageError, messageOf } from '../shared/errors.js';
import type { AnswerValue } from '../shared/jobs.js';

type JsonSchema = Exclude<Parameters<typeof z.fromJSONSchema>[0], boolean>;

/** A JSON Schema of an object. */
export type ObjectSchema = JsonSchema & {
  readonly properties: Readonly<Record<string, JsonSchema | boolean>>;
};

/** What is asked of each image, and which columns it makes. */
export interface AnswerShape {
  /** Of the object that a model is to answer with. */
  readonly schema: ObjectSchema;
  /** Whether servers that hold a model to the schema take this one as strict: it uses only what all of them know. */
  readonly isStrict: boolean;
  /** The output's columns, one for each value of an answer. */
  readonly columns: readonly string[];
  /** How many prompts are asked for; undefined for fields of one's own. */
  readonly prompts?: number | undefined;
  /** What is asked where no other prompt is given. */
  readonly prompt: string;
  /** What to answer with, in words; and what an answer holds then. */
  readonly inWords: string;
  readonly expected: string;
  /** The values of an answer, one for each column; or what is wrong with it, in words. */
  read(answer: unknown): { readonly values: readonly AnswerValue[] } | { readonly wrong: string };
}

const MOST_PROMPTS = 16;
const textsSchema = z.array(z.string().trim().min(1));
const fieldsSchema = z.record(z.string(), z.json());

const STYLE = `one line of 20 to 60 words: the subject first, then setting, composition, medium or style (name artists or
movements where they fit), light, colours and mood. Do not mention that there is an image.
End each with --ar W:H, the picture's aspect ratio in small whole numbers.`;

/**
 * So many prompts for each image.
 * @throws {UsageError} unless it is a whole number from 1 to 16
 */
export function promptsShape(count: number): AnswerShape {
  if (!Number.isInteger(count) || count < 1 || count > MOST_PROMPTS)
    throw new UsageError(`--count ${count}: expected a whole number from 1 to ${MOST_PROMPTS}`);
  const list: JsonSchema = { type: 'array', items: { type: 'string' }, minItems: count, maxItems: count };
  const schema = objectSchema({ prompts: list });
  const isOne = count === 1;
  const { read } = shapeOf(schema);
  return {
    schema,
    isStrict: true,
    columns: isOne ? ['prompt'] : Array.from({ length: count }, (_, index) => `prompt_${index + 1}`),
    prompts: count,
    prompt: isOne
      ? `Write a prompt for a text-to-image model that would make a picture like this one:\n${STYLE}`
      : `Write ${count} different prompts for a text-to-image model, each of which would make a picture like this one,\neach ${STYLE}`,
    inWords: `Answer with a JSON object and nothing else: {"prompts": [${isOne ? 'one text' : `${count} texts`}]}`,
    expected: count === 4 ? 'four prompts' : `${count} prompt${isOne ? '' : 's'}`,
    read: (answer) => {
      const found = read(answer);
      if ('wrong' in found) return found;
      const texts = textsSchema.safeParse(found.values[0]);
      return texts.success ? { values: texts.data } : { wrong: 'prompts: an empty text' };
    },
  };
}

const TYPES = {
  string: 'text',
  number: 'number',
  integer: 'whole number',
  boolean: 'true or false',
} as const;

function isType(text: string): text is keyof typeof TYPES {
  return Object.hasOwn(TYPES, text);
}

const FIELD = /^([\p{L}_][\p{L}\p{N}_ -]*?)(\[\])?(?::\s*([^:]+))?$/u;

/**
 * Reads `--fields`: names with commas between; `tags[]` is a list, `nsfw:boolean` has a type (string, number, integer,
 * boolean), `mood:calm|tense` one of some values.
 * @throws {UsageError} for what is no field, or is there twice
 */
export function parseFields(text: string): AnswerShape {
  const properties: Record<string, JsonSchema> = {};
  const words: string[] = [];
  for (const written of text.split(',').map((part) => part.trim())) {
    const [, name, list, type = 'string'] = FIELD.exec(written) ?? [];
    if (name === undefined)
      throw new UsageError(
        `--fields ${JSON.stringify(written)}: expected a name such as caption, tags[], nsfw:boolean or mood:calm|tense`,
      );
    if (Object.hasOwn(properties, name)) throw new UsageError(`--fields: ${name} is there twice`);
    const values = type.split('|').map((value) => value.trim());
    if (values.length === 1 && !isType(type))
      throw new UsageError(
        `--fields ${written}: expected a type of ${Object.keys(TYPES).join(', ')}, or several values such as calm|tense`,
      );
    const item: JsonSchema = isType(type) ? { type } : { type: 'string', enum: values };
    const word = isType(type) ? TYPES[type] : `one of ${values.join(', ')}`;
    properties[name] = list === undefined ? item : { type: 'array', items: item };
    words.push(`${JSON.stringify(name)} (${list === undefined ? word : `a list, each ${word}`})`);
  }
  return {
    ...shapeOf(objectSchema(properties)),
    isStrict: true,
    prompt: `Look closely at this picture, and say of it: ${Object.keys(properties).join(', ')}.`,
    inWords: `Answer with one JSON object and nothing else, with these fields: ${words.join(', ')}.`,
    expected: `the fields ${Object.keys(properties).join(', ')}`,
  };
}

const schemaSchema = z.looseObject({
  type: z.literal('object'),
  properties: z
    .record(
      z.string(),
      z.custom<JsonSchema>((value) => typeof value === 'object' && value !== null),
    )
    .refine((fields) => Object.keys(fields).length > 0),
});

/**
 * Reads a JSON Schema of one's own; its properties are the fields.
 * @param name the flag and file, for messages
 * @throws {UsageError} when it is none of an object
 */
export function parseSchema(json: unknown, name: string): AnswerShape {
  const parsed = schemaSchema.safeParse(json);
  if (!parsed.success)
    throw new UsageError(`${name}: expected a JSON Schema with "type": "object" and "properties"`);
  try {
    return {
      ...shapeOf(parsed.data),
      isStrict: false,
      prompt: 'Look closely at this picture, and describe it.',
      inWords: `Answer with one JSON object and nothing else, which fits this JSON Schema: ${JSON.stringify(json)}`,
      expected: 'what its schema says',
    };
  } catch (error) {
    throw new UsageError(`${name}: this is no JSON Schema that can be used: ${messageOf(error)}`);
  }
}

function objectSchema(properties: ObjectSchema['properties']): ObjectSchema {
  return { type: 'object', properties, required: Object.keys(properties), additionalProperties: false };
}

/** What an answer may have too much does no harm: it is left out. */
function shapeOf(schema: ObjectSchema): Pick<AnswerShape, 'schema' | 'columns' | 'read'> {
  const columns = Object.keys(schema.properties);
  const checker = z.fromJSONSchema({ ...schema, additionalProperties: true });
  return {
    schema,
    columns,
    read: (answer) => {
      const checked = checker.safeParse(answer);
      if (!checked.success) return { wrong: issuesOf(checked.error) };
      const fields = fieldsSchema.parse(checked.data);
      return { values: columns.map((column) => fields[column] ?? null) };
    },
  };
}

const MOST_ISSUES = 3;

function issuesOf({ issues }: z.ZodError): string {
  const shown = issues.slice(0, MOST_ISSUES).map(({ path, message }) => {
    const where = path.join('.');
    return where === '' ? message : `${where}: ${message}`;
  });
  return shown.join('; ');
}
