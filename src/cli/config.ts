import { lstatSync } from 'node:fs';
import type { YAMLError } from 'yaml';
import { UsageError, messageOf } from '../shared/errors.js';
import { nearest } from '../shared/nearest.js';
import { COMMANDS, type CommandName, longFlag, readSmallFile, takesOptionsOf } from './option-spec.js';
import { type CommandOption, type OptionsOf, optionsOf } from './options.js';
import { printable } from './text.js';

/** What is looked for in the current folder. */
const NAMES = ['bulk-describe.config.json', 'bulk-describe.config.yaml', 'bulk-describe.config.yml'];

/** Where the words of YAML's reader are for programmers. */
const PLAIN_WORDS: Partial<Record<YAMLError['code'], string>> = {
  MULTIPLE_DOCS: 'expected one document, without another one after ---',
  NON_STRING_KEY: 'expected a name as a key',
};

/** What is given for an option, before it is read. */
interface Given {
  /** As its flag would set it. */
  readonly value: string | boolean;
  readonly from: 'flag' | 'environment' | 'file';
  /** What messages call it: the flag, the variable, or the place in the file. */
  readonly source: string;
}

/** By the names of options. */
export type GivenOptions = ReadonlyMap<string, Given>;

type Entries = ReadonlyMap<string, unknown>;

/**
 * What flags give, and the environment where they do not.
 * @param typed gives what has been typed for an option
 */
export function givenOptions(
  options: readonly CommandOption[],
  typed: (option: string) => unknown,
): Map<string, Given> {
  const given = new Map<string, Given>();
  for (const { name, flags, env = '' } of options) {
    const value = typed(name);
    const variable = process.env[env];
    if (typeof value === 'string' || typeof value === 'boolean')
      given.set(name, { value, from: 'flag', source: longFlag(flags) });
    // An empty variable counts for nothing.
    else if (variable) given.set(name, { value: variable, from: 'environment', source: env });
  }
  return given;
}

/**
 * Adds what the configuration file says of a command's options, where neither a flag nor the environment does.
 * @param typed the path that was typed, in place of a file in the current folder
 * @returns the file's path; undefined when there is none
 * @throws {UsageError} for a file that cannot be read, and for a key that is not known, of whatever command
 */
export async function addConfig(
  given: Map<string, Given>,
  name: CommandName,
  typed?: string,
): Promise<string | undefined> {
  const path = typed ?? findFile();
  if (path === undefined) return undefined;
  if (path === '') throw new UsageError('--config needs a value');
  const top = mapOf(await readEntries(path, typed === undefined ? path : `--config ${path}`));
  if (top === undefined)
    throw new UsageError(`${path}: expected a line for each option, such as \`rate: 10/s\``);
  const common = new Map<string, unknown>();
  const sections = new Map<string, Entries>();
  for (const [key, content] of top) {
    const command = COMMANDS.find((known) => known === key);
    const section = mapOf(content);
    if (command === undefined || section === undefined) {
      common.set(key, content);
    } else {
      checkKeys(section, optionsOf(command), `${path}: ${command}.`);
      sections.set(command, section);
    }
  }
  common.delete('$schema');
  checkKeys(common, COMMANDS.flatMap(optionsOf), `${path}: `, COMMANDS);
  // The command's own section comes last, and wins.
  const owners = [...takesOptionsOf(name)].reverse();
  for (const option of optionsOf(name)) {
    const key = keyOf(option);
    const owner = owners.find((command) => sections.get(command)?.has(key) === true);
    // The limits of a made-up API are none of an account's, though they are called the same.
    const isApart = option.isServers === true || name === 'simulate';
    if (owner === undefined && (isApart || !common.has(key))) continue;
    const content = owner === undefined ? common.get(key) : sections.get(owner)?.get(key);
    const place = owner === undefined ? `${path}: ${key}` : `${path}: ${owner}.${key}`;
    const value = fileValue(option, content, place);
    if (value !== undefined && !given.has(option.name))
      given.set(option.name, { value, from: 'file', source: place });
  }
  return path;
}

/** What an option's text means; what takes none stays as it is. @throws {UsageError} */
export async function readValue(option: CommandOption, given: GivenOptions): Promise<unknown> {
  const { file, needs, parse } = option;
  const { value, from, source: flag = '' } = given.get(option.name) ?? {};
  if (typeof value !== 'string') return value;
  const isFromEnv = from === 'environment';
  if (value === '') throw new UsageError(`${flag} needs a value`);
  const source = isFromEnv || file === undefined ? flag : `${flag} ${value}`;
  let text = value;
  if (file !== undefined) text = (isFromEnv ? value : await readSmallFile(value, source)).trim();
  if (text === '' && !isFromEnv) throw new UsageError(`${source} is empty: put ${file ?? ''} into it`);
  const read = text === '' || parse === undefined ? text || undefined : await parse(text, source);
  if (needs !== undefined && !isFromEnv && !given.has(needs.name))
    throw new UsageError(`${flag} needs ${needs.text}`);
  return read;
}

/** The key of an option in a file: its long name. */
export function keyOf({ flags }: Pick<CommandOption, 'flags'>): string {
  return longFlag(flags).slice(2);
}

/** Whether a file may have a list for an option: it can be given several times, or takes a list with commas. */
export function takesList({ flags, isRepeatable }: CommandOption): boolean {
  return isRepeatable === true || /,\.\.\.>|<list>/.test(flags);
}

function findFile(): string | undefined {
  // A link that leads nowhere is there too: it is not to be passed over.
  const found = NAMES.filter((name) => lstatSync(name, { throwIfNoEntry: false }) !== undefined);
  if (found.length > 1) {
    throw new UsageError(
      `${found.join(' and ')} are both in this folder: keep one of them, or name one with --config <path>`,
    );
  }
  return found[0];
}

async function readEntries(path: string, source: string): Promise<unknown> {
  const text = (await readSmallFile(path, source)).replace(/^\uFEFF/, '');
  const isJson = /\.json$/i.test(path);
  if (isJson) checkJson(text, source);
  // JSON is YAML, whose reader says which key is there twice; `JSON.parse` takes the last one.
  const { parseDocument } = await import('yaml');
  const document = parseDocument(text, {
    // Every value of YAML stays as it is written: 007, 1.10, yes and 2026-01-01 are text, as they are behind a flag.
    schema: isJson ? 'json' : 'failsafe',
    resolveKnownTags: false,
    prettyErrors: true,
    stringKeys: true,
  });
  const [trouble] = [...document.errors, ...document.warnings];
  if (trouble !== undefined) {
    const { code, message, linePos } = trouble;
    const said = PLAIN_WORDS[code] ?? message.replace(/ at line [^]*$/, '');
    throw new UsageError(`${source}: line ${linePos?.[0].line ?? 1}: ${said}`);
  }
  try {
    const content: unknown = document.toJS();
    return !isJson && (content === '' || content === null) ? {} : content;
  } catch (error) {
    // Aliases may go in circles, or make much of little.
    throw new UsageError(`${source}: ${messageOf(error)}`);
  }
}

/** @throws {UsageError} for what YAML allows and JSON does not, such as a comma at the end */
function checkJson(text: string, source: string): void {
  try {
    JSON.parse(text);
  } catch (error) {
    const position = /position (\d+)/.exec(messageOf(error))?.[1];
    const place =
      position === undefined ? '' : `line ${text.slice(0, Number(position)).split('\n').length}: `;
    throw new UsageError(`${source}: ${place}${messageOf(error)}`);
  }
}

function mapOf(content: unknown): Entries | undefined {
  const isMap = typeof content === 'object' && content !== null && !Array.isArray(content);
  return isMap ? new Map(Object.entries(content)) : undefined;
}

function checkKeys(
  entries: Entries,
  options: readonly CommandOption[],
  start: string,
  sections: readonly string[] = [],
): void {
  const known = options.filter(({ onlyTyped }) => onlyTyped !== true).map(keyOf);
  for (const key of entries.keys()) {
    if (known.includes(key)) continue;
    if (sections.includes(key))
      throw new UsageError(`${start}${key}: expected options of \`${key}\` below it`);
    if (key === 'token')
      throw new UsageError(
        `${start}${key}: there is no such key, so that files can be shared: use token-file, or DESCRIBE_API_TOKEN`,
      );
    if (options.some((option) => keyOf(option) === key))
      throw new UsageError(`${start}${key} is for one call alone: give it as --${key}, not in a file`);
    const near = nearest(key, [...known, ...sections]);
    const hint = near === undefined ? 'keys are the long names of options' : `did you mean ${near}?`;
    throw new UsageError(`${start}${key} is not known: ${hint}`);
  }
}

/**
 * As its flag would set it; undefined where a `false` leaves it off.
 * @throws {UsageError} for what a flag could not say
 */
function fileValue(option: CommandOption, content: unknown, place: string): string | boolean | undefined {
  const { flags, default: preset } = option;
  const mayBeBare = !flags.includes('<');
  const flag = { true: true, false: false }[String(content)];
  if (mayBeBare && flag !== undefined) {
    if (!flag) return undefined;
    return flags.includes('[') ? preset : !flags.startsWith('--no-');
  }
  if (mayBeBare && !flags.includes('[')) throw new UsageError(`${place}: expected true or false`);
  if (!Array.isArray(content)) return textOf(content, place);
  if (!takesList(option)) throw new UsageError(`${place}: expected one value, not a list`);
  const separator = option.isRepeatable === true ? '\n' : ',';
  const items = content.map((item: unknown) => textOf(item, place));
  const broken = items.find((item) => item.includes(separator));
  if (broken === undefined) return items.join(separator);
  throw new UsageError(`${place}: ${JSON.stringify(broken)} cannot be an item of a list`);
}

function textOf(content: unknown, place: string): string {
  if (content === '' || content === null) throw new UsageError(`${place} needs a value`);
  if (typeof content === 'string') return content;
  if (typeof content === 'number' && Math.abs(content) <= Number.MAX_SAFE_INTEGER) return String(content);
  throw new UsageError(`${place}: expected text or a number, in quotes where it is a very large one`);
}

/** `bulk-describe config [command]`: what holds for it where nothing is typed, and where that is from. @returns 0 */
export async function config(options: OptionsOf<'config'>, ...words: string[]): Promise<number> {
  const asked = words.length === 0 ? 'run' : words.join(' ');
  const name = COMMANDS.find((command) => command === asked);
  if (name === undefined) {
    const near = nearest(asked, COMMANDS);
    const hint = near === undefined ? 'see `bulk-describe help --all`' : `did you mean ${near}?`;
    throw new UsageError(`config: ${asked} is no command: ${hint}`);
  }
  const known = optionsOf(name);
  const given = givenOptions(known, () => undefined);
  const path = await addConfig(given, name, options.config);
  for (const option of known) await readValue(option, given);
  const shown = known
    .filter((option) => option.name !== 'config')
    .map((option) => ({ key: keyOf(option), ...shownOf(option, given.get(option.name)) }));
  if (options.json === true) {
    const entries = shown.map(({ key, ...about }): [string, object] => [key, about]);
    const content = { command: name, file: path ?? null, options: Object.fromEntries<object>(entries) };
    process.stdout.write(`${JSON.stringify(content, undefined, 2)}\n`);
    return 0;
  }
  const held = shown.filter(({ value }) => value !== null);
  const rows = held.map(({ key, value, from, place }) => [key, printable(value ?? ''), place ?? from ?? '']);
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = [['file', `${path ?? 'none'}, for \`${name}\``], ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  process.stdout.write(`${lines.join('\n')}\n`);
  return 0;
}

/** An option for people and programs: secrets stay hidden. */
function shownOf({ flags, isSecret = false, file, default: preset }: CommandOption, given?: Given) {
  if (given === undefined) {
    // Without `--dashboard` there is none, at no port.
    const value = flags.includes('[') ? null : (preset ?? null);
    return { value, from: value === null ? null : 'default', place: null };
  }
  const { from, source: place } = given;
  // A variable holds what would be in the file that a flag names.
  if (isSecret || (from === 'environment' && file !== undefined)) return { value: '(hidden)', from, place };
  // What `--no-x` turns off is off: its key is on.
  const text = typeof given.value === 'boolean' ? 'true' : given.value;
  return { value: text.replaceAll('\n', ', ').replace(/^(\w+:\/\/[^:@/]*):.*@/, '$1:***@'), from, place };
}
