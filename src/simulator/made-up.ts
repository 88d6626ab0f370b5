import { z } from 'zod';

const schemaSchema = z.looseObject({
  type: z.union([z.string(), z.array(z.string())]).optional(),
  enum: z.array(z.unknown()).min(1).optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
  items: z.unknown().optional(),
  minItems: z.int().min(0).max(100).optional(),
});

/** What fits a JSON Schema: its texts are these, one after the other, and over again. */
export function madeUp(schema: unknown, texts: readonly string[]): unknown {
  let used = 0;
  const fill = (part: unknown): unknown => {
    const known = schemaSchema.safeParse(part).data;
    const { enum: values, properties = {}, items, minItems = 2 } = known ?? {};
    if (values !== undefined) return values[0];
    switch (String([known?.type].flat()[0])) {
      case 'object':
        return Object.fromEntries(Object.entries(properties).map(([name, inner]) => [name, fill(inner)]));
      case 'array':
        return Array.from({ length: minItems }, () => fill(items));
      case 'number':
      case 'integer':
        return 7;
      case 'boolean':
        return false;
      case 'null':
        return null;
      default:
        return texts[used++ % texts.length];
    }
  };
  return fill(schema);
}

const FIELD =
  /("(?:[^"\\]|\\.)+") \((a list, each )?(text|whole number|number|true or false|one of ([^)]+))\)/g;
const TYPES: Readonly<Record<string, string>> = {
  text: 'string',
  'whole number': 'integer',
  number: 'number',
  'true or false': 'boolean',
};

/** The schema that our own words ask for where a server is asked in words; undefined for others. */
export function schemaInWords(words: string): unknown {
  const [, json] = /fits this JSON Schema: (\{.*\})/.exec(words) ?? [];
  if (json !== undefined) return JSON.parse(json);
  const fields = [...words.matchAll(FIELD)].map(
    ([, name = '""', list, type = '', values]): [string, object] => {
      const item = values === undefined ? { type: TYPES[type] } : { enum: values.split(', ') };
      return [String(JSON.parse(name)), list === undefined ? item : { type: 'array', items: item }];
    },
  );
  return fields.length === 0 ? undefined : { type: 'object', properties: Object.fromEntries(fields) };
}
