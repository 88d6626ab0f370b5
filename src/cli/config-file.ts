import { lstatSync } from 'node:fs';
import type { YAMLError } from 'yaml';
import { UsageError, messageOf } from '../shared/errors.js';
import { nearest } from '../shared/nearest.js';
import { COMMANDS, type CommandName, takesOptionsOf } from './option-spec.js';
import { type CommandOption, optionsOf } from './options.js';
import { readSmallFile } from './option-spec.js';

/** What is looked for in the current folder. */
const NAMES = ['bulk-describe.config.json', 'bulk-describe.config.yaml', 'bulk-describe.config.yml'];

/** Where the words of YAML's reader are for programmers. */
const PLAIN_WORDS: Partial<Record<YAMLError['code'], string>> = {
  MULTIPLE_DOCS: 'expected one document, without another one after ---',
  NON_STRING_KEY: 'expected a name as a key',
};

/** What a file has for an option: as its flag would set it, undefined where a `false` leaves it off; and where it stands. */
interface FileValue {
  readonly value: string | boolean | undefined;
  readonly place: string;
}

interface ConfigFile {
  /** Undefined when there is none. */
  readonly path?: string;
  /** By the names of options. */
  readonly values: ReadonlyMap<string, FileValue>;
}

type Entries = ReadonlyMap<string, unknown>;

/**
 * What the configuration file says of a command's options.
 * @param given the path that was typed, in place of a file in the current folder
 * @throws {UsageError} for a file that cannot be read, and for a key that is not known, of whatever command
 */
export async function readConfig(name: CommandName, given?: string): Promise<ConfigFile> {
  const path = given ?? findFile();
  const values = new Map<string, FileValue>();
  if (path === undefined) return { values };
  if (path === '') throw new UsageError('--config needs a value');
  const top = mapOf(await readEntries(path, given === undefined ? path : `--config ${path}`));
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
    values.set(option.name, { value: valueOf(option, content, place), place });
  }
  return { path, values };
}

/** The key of an option in a file: its long name. */
export function keyOf({ flags }: Pick<CommandOption, 'flags'>): string {
  return /--([\w-]+)/.exec(flags)?.[1] ?? flags;
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
  if (!/\.json$/i.test(path)) return readYaml(text, source);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    const position = /position (\d+)/.exec(messageOf(error))?.[1];
    const place =
      position === undefined ? '' : `line ${text.slice(0, Number(position)).split('\n').length}: `;
    throw new UsageError(`${source}: ${place}${messageOf(error)}`);
  }
  // Of a key that is there twice JSON takes the last one, and says nothing. JSON is YAML, whose reader does.
  const { parseDocument } = await import('yaml');
  const twice = parseDocument(text).errors.find(({ code }) => code === 'DUPLICATE_KEY');
  if (twice !== undefined) throw yamlTrouble(twice, source);
  return content;
}

async function readYaml(text: string, source: string): Promise<unknown> {
  const { parseDocument } = await import('yaml');
  // Every value stays as it is written: 007, 1.10, yes and 2026-01-01 are text, as they are behind a flag.
  const document = parseDocument(text, {
    schema: 'failsafe',
    resolveKnownTags: false,
    prettyErrors: true,
    stringKeys: true,
  });
  const [trouble] = [...document.errors, ...document.warnings];
  const content: unknown = trouble === undefined ? attempt(() => document.toJS(), source) : undefined;
  if (trouble === undefined) return content === '' || content === null ? {} : content;
  throw yamlTrouble(trouble, source);
}

function yamlTrouble({ code, message, linePos }: YAMLError, source: string): UsageError {
  const said = PLAIN_WORDS[code] ?? message.replace(/ at line [^]*$/, '');
  return new UsageError(`${source}: line ${linePos?.[0].line ?? 1}: ${said}`);
}

/** Aliases may go in circles, or make much of little. */
function attempt(read: () => unknown, source: string): unknown {
  try {
    return read();
  } catch (error) {
    throw new UsageError(`${source}: ${messageOf(error)}`);
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

/** @throws {UsageError} for what a flag could not say */
function valueOf(option: CommandOption, content: unknown, place: string): FileValue['value'] {
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
