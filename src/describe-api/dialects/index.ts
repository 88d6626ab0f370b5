import { UsageError } from '../../shared/errors.js';
import { nearest } from '../../shared/nearest.js';
import type { Dialect, DialectSettings } from './dialect.js';
import { openai } from './openai.js';
import { imaginepro, legnext, thenextleg } from './polled.js';

export type { Dialect, DialectSettings, SubmitRequest } from './dialect.js';

/** Every dialect: a new one is one more object, and a line here. The first is the default. */
const DIALECTS = [thenextleg, imaginepro, legnext, openai] as const satisfies readonly Dialect[];

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

/** @throws {UsageError} when the settings ask for something that the dialect does not have, or leave out what it needs */
export function checkSettings(dialect: Dialect, settings: DialectSettings): void {
  const refuse = (flag: string, what: string): never => {
    throw new UsageError(`${flag}: the ${dialect.name} dialect has no ${what}: leave it away`);
  };
  const { submitMethod, expireMins, model, prompt, choices } = settings;
  if (submitMethod === 'get' && dialect.getTokenParameter === undefined)
    refuse('--submit-method get', 'GET form');
  if (expireMins !== undefined && dialect.expireParameter === undefined)
    refuse('--expire-after', 'expiry of messages');
  if (expireMins !== undefined && !(Number.isInteger(expireMins) && expireMins > 0))
    throw new UsageError(`--expire-after ${expireMins}m: the API counts whole minutes: give 1m, 2m or more`);
  if (dialect.takesModel === true) {
    if (model === undefined || model.trim() === '')
      throw new UsageError(`the ${dialect.name} dialect needs a model: name it with --model <name>`);
    return;
  }
  if (model !== undefined) refuse('--model', 'choice of models');
  if (prompt !== undefined) refuse('--prompt-file', 'prompt of ours');
  if (choices !== undefined) refuse('--choices', 'number of answers');
}
