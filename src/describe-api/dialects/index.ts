import { UsageError } from '../../shared/errors.js';
import { nearest } from '../../shared/nearest.js';
import type { Dialect, DialectSettings } from './dialect.js';
import { mj } from './mj.js';
import { openai } from './openai.js';
import { imaginepro, legnext, thenextleg } from './polled.js';

export { ANSWER_FORMATS, type AnswerFormat } from './dialect.js';
export type { Dialect, DialectSettings, SubmitRequest } from './dialect.js';

/** Every dialect: a new one is one more object, and a line here. The first is the default. */
const DIALECTS = [thenextleg, imaginepro, legnext, openai, mj] as const satisfies readonly Dialect[];

export type DialectName = (typeof DIALECTS)[number]['name'];

export const DIALECT_NAMES: readonly DialectName[] = DIALECTS.map(({ name }) => name);

/**
 * The dialect that is spoken: the one that is named, else the one of the API's host, else `thenextleg`.
 * @throws {UsageError} for a name that no dialect has, with the nearest one
 */
export function dialectFor({
  dialect,
  api,
}: {
  readonly dialect?: string | undefined;
  readonly api?: string | undefined;
}): Dialect {
  if (dialect !== undefined) {
    const named = DIALECTS.find(({ name }) => name === dialect);
    if (named !== undefined) return named;
    const near = nearest(dialect, DIALECT_NAMES);
    const hint = near === undefined ? `expected one of ${DIALECT_NAMES.join(', ')}` : `did you mean ${near}?`;
    throw new UsageError(`--dialect ${dialect}: ${hint}`);
  }
  const host = api !== undefined && URL.canParse(api) ? new URL(api).host : undefined;
  const ofHost = DIALECTS.find(({ hosts }) => host !== undefined && hosts.some((known) => known === host));
  return ofHost ?? thenextleg;
}

/** Settings that only a model can be given, and their flags. */
const MODEL_FLAGS: readonly (readonly [keyof DialectSettings, string])[] = [
  ['model', '--model'],
  ['prompt', '--prompt'],
  ['choices', '--choices'],
  ['answer', '--count, --fields and --schema'],
  ['system', '--system'],
  ['params', '--param'],
];

/** Fields of a request that say what is asked, and how its answer is read. */
const OWN_FIELDS = ['model', 'messages', 'n', 'response_format', 'stream'] as const;

/** @throws {UsageError} when the settings ask for something that the dialect does not have, or leave out what it needs */
export function checkSettings(dialect: Dialect, settings: DialectSettings): void {
  const refuse = (flag: string, what: string): never => {
    throw new UsageError(`${flag}: the ${dialect.name} dialect has no ${what}: leave it away`);
  };
  const { submitMethod, expireMins, model, choices } = settings;
  if (submitMethod === 'get' && dialect.getTokenParameter === undefined)
    refuse('--submit-method get', 'GET form');
  if (expireMins !== undefined && dialect.expireParameter === undefined)
    refuse('--expire-after', 'expiry of messages');
  if (expireMins !== undefined && !(Number.isInteger(expireMins) && expireMins > 0))
    throw new UsageError(`--expire-after ${expireMins}m: the API counts whole minutes: give 1m, 2m or more`);
  if (dialect.takesModel === true) {
    if (model === undefined || model.trim() === '')
      throw new UsageError(`the ${dialect.name} dialect needs a model: name it with --model <name>`);
    const own = OWN_FIELDS.find((name) => settings.params?.[name] !== undefined);
    if (own !== undefined)
      throw new UsageError(`--param ${own}: this field is not yours to set: leave it away`);
    const [column] = /\{\{[^{}]*\}\}/.exec(settings.system ?? '') ?? [];
    if (column !== undefined)
      throw new UsageError(
        `--system: ${JSON.stringify(column)} would be sent as it stands: the row's columns are for --prompt`,
      );
    if (choices === 4 && settings.answer !== undefined)
      throw new UsageError(
        '--choices 4 asks for four prompts: leave it away with --count, --fields and --schema',
      );
    return;
  }
  for (const [name, flag] of MODEL_FLAGS)
    if (settings[name] !== undefined) refuse(flag, 'choice of models, prompts or answers');
}
