import { parseDuration } from '../shared/durations.js';
import { UsageError } from '../shared/errors.js';
import type { ApiOptions } from '../run/api-options.js';
import { readFlagFile } from './flag-file.js';
import type { FlagTable, ParsedFlags } from './flags.js';

/** Which account: what every command needs that looks at an account's queue. */
export const API_FLAGS = {
  api: { takes: 'value', env: 'DESCRIBE_API_URL' },
  account: { takes: 'value', env: 'DESCRIBE_ACCOUNT' },
  dialect: { takes: 'value' },
} as const satisfies FlagTable;

/** How the API is called: what every command needs that works. */
export const CALL_FLAGS = {
  'token-file': { takes: 'value' },
  'submit-method': { takes: 'value' },
  'expire-after': { takes: 'value' },
  model: { takes: 'value' },
  'prompt-file': { takes: 'value' },
  choices: { takes: 'value' },
} as const satisfies FlagTable;

type ApiFlags = ParsedFlags<typeof API_FLAGS & typeof CALL_FLAGS>;

/** Turns the flags that tell about the API into options. @throws {UsageError} flag, value, and what is expected */
export function apiOptionsOf(flags: ApiFlags, env: NodeJS.ProcessEnv): ApiOptions {
  const expireAfter = flags.get('expire-after');
  return {
    api: flags.get('api'),
    token: flags.get('api') === 'simulator' ? undefined : readToken(flags.get('token-file'), env),
    account: flags.get('account'),
    dialect: flags.get('dialect'),
    submitMethod: parseMethod(flags.get('submit-method')),
    expireAfterMs: expireAfter === undefined ? undefined : parseDuration(expireAfter, '--expire-after'),
    model: flags.get('model'),
    prompt: readPrompt(flags.get('prompt-file')),
    choices: parseChoices(flags.get('choices')),
  };
}

function readToken(path: string | undefined, env: NodeJS.ProcessEnv): string | undefined {
  if (path === undefined) return env['DESCRIBE_API_TOKEN']?.trim() || undefined;
  const token = readFlagFile('--token-file', path);
  if (token === '') throw new UsageError(`--token-file ${path} is empty: put the token into it, on one line`);
  return token;
}

function readPrompt(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  const prompt = readFlagFile('--prompt-file', path);
  if (prompt === '')
    throw new UsageError(`--prompt-file ${path} is empty: put what the model is to be asked into it`);
  return prompt;
}

function parseMethod(text: string | undefined): 'post' | 'get' | undefined {
  if (text === undefined || text === 'post' || text === 'get') return text;
  throw new UsageError(`--submit-method ${text}: expected post or get`);
}

function parseChoices(text: string | undefined): 1 | 4 | undefined {
  if (text === undefined) return undefined;
  if (text === '1') return 1;
  if (text === '4') return 4;
  throw new UsageError(`--choices ${text}: expected 1 (one answer with four prompts) or 4 (one prompt each)`);
}
