import { Command, type CommanderError, Option } from 'commander';
import { nameCommand } from '../shared/file-lock.js';
import { UsageError } from '../shared/errors.js';
import { nearest } from '../shared/nearest.js';
import { type GivenOptions, addConfig, givenOptions, readValue } from './config.js';
import { COMMANDS, type CommandName, longFlag } from './option-spec.js';
import { type CommandOption, type OptionsOf, optionsOf } from './options.js';
import { alternatives } from './text.js';

/** Of help that does not go to a terminal. */
const HELP_COLUMNS = 110;

interface CommandSpec<Name extends CommandName> {
  readonly name: Name;
  /** Its arguments as commander takes them. */
  readonly args?: string;
  /** What follows its name where it is shown, when that is more than its arguments. */
  readonly usage?: string;
  /** What it does, where its parent lists it; and in its own help. */
  readonly summary?: string;
  readonly about: string;
  /** Lines that follow the options. */
  readonly notes?: string;
  /** Lines, each after a line break. */
  readonly examples: string;
  /** What helps who gives too few or too many arguments. */
  readonly hint?: string;
  /** Called when an option cannot be used, with what has been read of them. */
  readonly onRefusal?: (options: OptionsOf<Name>, error: unknown) => Promise<void>;
  /** @returns what executes it, and gives the exit code */
  readonly load: () => Promise<(options: OptionsOf<Name>, ...args: string[]) => Promise<number>>;
}

/** A command that has others below it: the program itself, or `schedule`. */
export function createParent(name: string, about: string, after: string): Command {
  const command = new Command(name).description(about).usage('<command> [options]').helpCommand(false);
  return styled(command.enablePositionalOptions().addHelpText('after', `\n${after}`), '');
}

/** A command. Its options and their help come from the table of options. */
export function createCommand<Name extends CommandName>(spec: CommandSpec<Name>): Command {
  const { name, args = '', usage = args, summary = '', about, notes, examples, hint = '', load } = spec;
  const command = new Command(name.split(' ').at(-1)).usage(usage);
  if (args !== '') command.arguments(args);
  command.summary(summary).description(about);
  const options = optionsOf(name);
  for (const option of options) command.addOption(commanderOption(command, option));
  command.addHelpText('after', `\n${notes === undefined ? '' : `${notes}\n\n`}Examples:${examples}`);
  command.action(async () => {
    const [first = name] = name.split(' ');
    if (command.args.includes('')) {
      throw new UsageError(
        `an argument of ${first} is empty: is it a variable of the shell that is not set?`,
      );
    }
    const given = givenOptions(options, (option) =>
      command.getOptionValueSource(option) === 'cli' ? command.getOptionValue(option) : undefined,
    );
    try {
      const { config } = command.opts<{ config?: string }>();
      // `config` and `completion` are about the others.
      if (COMMANDS.some((known) => known === name)) await addConfig(given, name, config);
      for (const option of options.filter((each) => given.has(each.name)))
        command.setOptionValue(option.name, await readValue(option, given));
    } catch (error) {
      // What is refused has the texts of the others.
      given.forEach(({ value }, option) => command.setOptionValue(option, value));
      await spec.onRefusal?.(command.opts<OptionsOf<Name>>(), error);
      throw error;
    }
    nameCommand(first);
    const execute = await load();
    try {
      process.exitCode = await execute(command.opts<OptionsOf<Name>>(), ...command.args);
    } catch (error) {
      throw withPlaces(error, options, given);
    }
  });
  return styled(command, hint);
}

/** What all commands have in common. */
function styled(command: Command, hint: string): Command {
  return command
    .addHelpOption(new Option('-h, --help').hideHelp())
    .configureHelp({
      subcommandTerm: (sub) => `${sub.name()} ${sub.usage().replace('[options]', '')}`,
      optionTerm: ({ flags }) => flags.replace(/ \[(.*)\]$/, '[=<$1>]'),
      optionDescription: ({ description }) => description,
    })
    .configureOutput({
      getOutHelpWidth: () => (process.stdout.isTTY ? process.stdout.columns : HELP_COLUMNS),
      // What is refused is printed by whoever catches it.
      writeErr: () => undefined,
    })
    .exitOverride((error) => {
      throw refusalOf(command, error, hint);
    });
}

function commanderOption(command: Command, spec: CommandOption): Option {
  const { name, flags, about, heading, env, file, isRepeatable, default: preset, parse } = spec;
  const extra = [
    preset === undefined ? [] : `default: ${preset}`,
    env === undefined ? [] : file === undefined ? `environment: ${env}` : `or what is in it as ${env}`,
  ].flat();
  const option = new Option(flags, extra.length === 0 ? about : `${about} (${extra.join('; ')})`);
  // `--header` is not the opposite of `--no-header`.
  option.attributeName = () => name;
  if (parse?.choices !== undefined) option.argChoices = [...parse.choices];
  return option.helpGroup(heading).argParser((text: string | undefined, before: unknown) => {
    // A forgotten value must not make the next flag its value: `-o --dry-run` would pay.
    if (text !== undefined && isFlag(command, text) && process.argv.includes(text))
      throw new UsageError(`${longFlag(flags)} needs a value`);
    // What `--no-x` turns off is on from the start.
    const isSecond = option.negate ? before === false : before !== undefined;
    if (isSecond && isRepeatable === true) return `${String(before)}\n${text ?? ''}`;
    if (isSecond) throw new UsageError(`${longFlag(flags)} is given twice: give it once`);
    return text;
  });
}

/** A refusal that names a flag, with the variable, or the place in the configuration file, where it is meant instead. */
function withPlaces(error: unknown, options: readonly CommandOption[], given: GivenOptions) {
  if (!(error instanceof UsageError)) return error;
  const { message } = error;
  const notes = options.flatMap(({ name, flags }) => {
    const { from = 'flag', source = '' } = given.get(name) ?? {};
    const isNamed = new RegExp(`${longFlag(flags)}(?![\\w-])`).test(message);
    return from !== 'flag' && isNamed ? [`${longFlag(flags)} is from ${source}`] : [];
  });
  return notes.length === 0 ? error : new UsageError(`${message} (${notes.join('; ')})`);
}

function isFlag({ options }: Command, text: string): boolean {
  const [start] = text.split('=');
  return (
    ['-h', '--help'].includes(text) || options.some(({ short, long }) => short === text || long === start)
  );
}

/** What commander refuses, in this program's words. Help that was asked for is no refusal, and ends with its own code. */
function refusalOf(command: Command, error: CommanderError, hint: string): Error {
  const name = fullName(command);
  const { args, registeredArguments } = command;
  const wanted = registeredArguments.map((argument) => argument.name());
  const quoted = /'([^]*)'/.exec(error.message)?.[1] ?? '';
  switch (error.code) {
    case 'commander.unknownOption':
      return unknownFlag(command, quoted);
    case 'commander.optionMissingArgument':
      return new UsageError(`${longFlag(quoted)} needs a value`);
    case 'commander.unknownCommand':
      return unknownCommand(command, args[0] ?? '');
    case 'commander.missingArgument': {
      const needed = wanted.map((word) => `${/^[aeiou]/.test(word) ? 'an' : 'a'} ${word}`).join(' and ');
      return new UsageError(`${name} needs ${needed}: bulk-describe ${name} ${command.usage()}${hint}`);
    }
    case 'commander.excessArguments': {
      const taken = wanted.map((word) => `one ${word}`).join(' and ') || 'no argument';
      return new UsageError(`${name} takes ${taken}: ${args[wanted.length] ?? ''} is one too many${hint}`);
    }
    case 'commander.help':
      if (command.parent === null) command.outputHelp();
      else return new UsageError(`${name} needs to know what to do${choicesOf(command)}${seeHelp(name)}`);
  }
  return error;
}

function unknownFlag(command: Command, given: string): UsageError {
  const [flag = '', ...value] = given.split('=');
  if (flag === '--token') {
    return new UsageError(
      'there is no --token, since arguments are visible to other users: use --token-file <path> or DESCRIBE_API_TOKEN',
    );
  }
  const known = command.options.map(({ long = '' }) => long.slice(2));
  if (known.includes(flag.slice(2))) {
    return new UsageError(`${flag} takes no value: leave =${value.join('=')} away`);
  }
  const near = nearest(flag.replace(/^-+/, ''), [...known, 'help']);
  const hint = near === undefined ? seeHelp(fullName(command)) : `: did you mean --${near}?`;
  return new UsageError(`unknown flag ${flag}${hint}`);
}

/** For a command that a parent does not have, with the nearest one. */
export function unknownCommand(parent: Command, given: string): UsageError {
  const nameOf = (name: string) => `${fullName(parent)} ${name}`.trim();
  const near = nearest(given, namesOf(parent));
  const hint = near === undefined ? seeHelp(fullName(parent)) : `: did you mean \`${nameOf(near)}\`?`;
  return new UsageError(`unknown command ${nameOf(given)}${choicesOf(parent)}${hint}`);
}

function namesOf({ commands }: Command): string[] {
  return commands.map((command) => command.name());
}

/** The commands below one, where they are few: ` (add, list, run or remove)`. */
function choicesOf(command: Command): string {
  return command.parent === null ? '' : ` (${alternatives(namesOf(command))})`;
}

function seeHelp(name: string): string {
  return `: see \`${`bulk-describe ${name}`.trim()} --help\``;
}

/** `run`, `schedule add`; nothing for the program. */
function fullName(command: Command): string {
  const { parent } = command;
  return parent === null ? '' : `${fullName(parent)} ${command.name()}`.trim();
}
