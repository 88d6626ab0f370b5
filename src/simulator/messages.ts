import { createHash } from 'node:crypto';
import { z } from 'zod';

/** The documented time after which an uncompleted message counts as incomplete. */
export const DEFAULT_EXPIRE_MINS = 12;

/** How a message ends: completed, expired where it would have completed, or not at all. */
type Fate = 'completes' | 'expires' | 'never';

/**
 * What a message id says. The simulator keeps no messages: everything that a poll needs is in the id, so
 * that a message outlives the process, as it does at the real service.
 */
export interface MessageFacts {
  /** Epoch milliseconds. */
  readonly submittedAt: number;
  readonly latencyMs: number;
  readonly fate: Fate;
  readonly urlHash: string;
  /** Makes ids of the same URL and millisecond differ, in other processes too. */
  readonly nonce: string;
  readonly ref: string;
}

/** A message at some moment, as the dialects show it. */
export type SimulatedMessage = ReturnType<typeof messageAt>;

const FATES = { c: 'completes', x: 'expires', n: 'never' } as const satisfies Record<string, Fate>;
const MESSAGE_ID = /^sim-([0-9a-z]{1,10})-([0-9a-z]{1,8})-([cxn])-([0-9a-f]{16})-([0-9a-z]+)(?:-([\w-]+))?$/;

/** `sim-<submit time>-<latency>-<fate>-<URL hash>-<nonce>[-<ref>]`; numbers in base 36, the ref in base64url. */
export function formatMessageId(facts: MessageFacts): string {
  const numbers = `${facts.submittedAt.toString(36)}-${facts.latencyMs.toString(36)}`;
  const letter = Object.entries(FATES).find(([, fate]) => fate === facts.fate)?.[0] ?? 'c';
  const ref = facts.ref && `-${Buffer.from(facts.ref).toString('base64url')}`;
  return `sim-${numbers}-${letter}-${facts.urlHash}-${facts.nonce}${ref}`;
}

/** Reads an id back; undefined for one that no simulator gave. */
export function parseMessageId(id: string): MessageFacts | undefined {
  const [, submitted, latency, letter, urlHash, nonce, ref] = MESSAGE_ID.exec(id) ?? [];
  if (!submitted || !latency || !urlHash || !nonce) return undefined;
  return {
    submittedAt: parseInt(submitted, 36),
    latencyMs: parseInt(latency, 36),
    fate: letter === 'x' || letter === 'n' ? FATES[letter] : FATES.c,
    urlHash,
    nonce,
    ref: Buffer.from(ref ?? '', 'base64url').toString('utf8'),
  };
}

/** When a message stops being worked on; a message that never completes is given up after `expireMins`. */
export function endsAt(
  { submittedAt, latencyMs, fate }: MessageFacts,
  expireMins = DEFAULT_EXPIRE_MINS,
): number {
  return submittedAt + Math.min(fate === 'never' ? Infinity : latencyMs, expireMins * 60_000);
}

/** What has become of a message by now. */
export function messageAt(facts: MessageFacts, nowMs: number, expireMins = DEFAULT_EXPIRE_MINS) {
  const { submittedAt, latencyMs, fate, urlHash, ref } = facts;
  const isOver = nowMs >= endsAt(facts, expireMins);
  const isInTime = nowMs >= submittedAt + latencyMs;
  const share = Math.max(0, nowMs - submittedAt) / Math.max(1, latencyMs);
  return {
    id: formatMessageId(facts),
    ref,
    state: !isOver
      ? ('working' as const)
      : fate === 'completes' && isInTime
        ? ('completed' as const)
        : ('failed' as const),
    /** 0..99, by the share of its latency that has passed. */
    progress: Math.min(99, Math.floor(share * 100)),
    /** ISO 8601. */
    submittedAt: new Date(submittedAt).toISOString(),
    completedAt: new Date(submittedAt + latencyMs).toISOString(),
    /** Each behind its keycap. Most looks find it working, and need none. */
    get prompts(): readonly string[] {
      return makePrompts(urlHash);
    },
  };
}

// Commas, quotes, letters beyond ASCII and line breaks are here on purpose: the real prompts have them.
const SUBJECTS = [
  'girl with pink hair in a rain-soaked alley',
  'an old lighthouse, its lamp lit, above a "sleeping" sea',
  'two foxes playing chess in a winter forest',
  "a fisherman's hands mending a blue net",
  'portrait of an astronaut, visor half open',
  'café terrace at dusk, crowded, warm lamps',
  'abandoned greenhouse overgrown with orchids',
  'a red bicycle leaning on a whitewashed wall',
] as const;
const STYLES = [
  'in the style of Zdzisław Beksiński',
  'in the style of 葛飾北斎, woodblock print',
  'in the style of Alphonse Mucha, art nouveau',
  'in the style of José Clemente Orozco, "mural" brushwork',
  'in the style of Hilma af Klint & Søren Kierkegård',
  'in the style of Élisabeth Vigée Le Brun, oil on canvas',
] as const;
const DETAILS = [
  'soft focus, 35mm film grain',
  'dark teal and light amber',
  'volumetric light, ultra detailed, 8k',
  '“golden hour” glow, muted palette',
  'high contrast; sharp shadows',
  'pastel gouache, flat colors',
] as const;
const RATIOS = ['50:93', '1:1', '16:9', '2:3', '128:85', '4:5'] as const;
const LINE_BREAK_SHARE = 0.1;

/**
 * The four prompts of an image as the API gives them: each behind its keycap, the aspect ratio at its end.
 * The same image always gets the same ones.
 */
export function makePrompts(urlHash: string): string[] {
  const ratio = pick(RATIOS, randomOfHash(urlHash, 0));
  return [1, 2, 3, 4].map((digit) => {
    const random = randomOfHash(urlHash, digit);
    const separator = random() < LINE_BREAK_SHARE ? ',\n' : ', ';
    const parts = [pick(SUBJECTS, random), pick(STYLES, random), pick(DETAILS, random)];
    return `${digit}\uFE0F\u20E3 ${parts.join(separator)} --ar ${ratio}`;
  });
}

/** A source of numbers in [0, 1). */
export type Random = () => number;

/** Mulberry32: small, fast, and the same numbers for the same seed everywhere. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What a message id carries of its URL: 16 hex digits, enough to make the prompts from. */
export function hashUrl(url: string): string {
  return createHash('sha256').update(url).digest('hex').slice(0, 16);
}

/** A source that depends on an image (and on a salt, so that independent choices are independent). */
export function randomOfHash(urlHash: string, salt: number): Random {
  return seededRandom(parseInt(urlHash.slice(0, 8), 16) ^ Math.imul(salt + 1, 0x9e3779b1));
}

/** One of the list. */
export function pick<T>(list: readonly [T, ...T[]], random: Random): T {
  return list[Math.floor(random() * list.length)] ?? list[0];
}

/** Lognormal: `median` times e to a normally distributed power (Box-Muller); whole numbers. */
export function drawLatencyMs(median: number, spread: number, random: Random): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Math.round(median * Math.exp(spread * normal));
}

/** Which of several exclusive kinds happens, each as often as its share says; usually none. */
export function drawKind<K extends string>(
  kinds: readonly K[],
  shares: Readonly<Partial<Record<K, number | undefined>>>,
  random: Random,
): K | undefined {
  let rest = random();
  return kinds.find((kind) => (rest -= shares[kind] ?? 0) < 0);
}

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
