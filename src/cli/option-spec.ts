export interface OptionSpec {
  readonly flags: string;
  readonly about: string;
  /** The variable that stands in for it; of an option that names a file, the variable holds what would be in the file. */
  readonly env?: string;
  /** Of an option that names a small file, whose content is its value: what to put into it. */
  readonly file?: string;
  /** The key of another option that it cannot be without, and how to say so. */
  readonly needs?: { readonly name: string; readonly text: string };
  /** What holds without it, for people; the code that uses the value has the default itself. */
  readonly default?: string;
  /** It may be given several times; `parse` gets a line for each. */
  readonly isRepeatable?: boolean;
  /** Its value is not shown. */
  readonly isSecret?: boolean;
  /** It is said for one call, and is no key of a configuration file. */
  readonly onlyTyped?: boolean;
  readonly parse?: Parser;
}

interface Parser {
  (text: string, source: string): unknown;
  /** All that it takes, where these are few words. */
  readonly choices?: readonly string[];
}

/** An option. */
export function option<const F extends string, const M extends Omit<OptionSpec, 'flags' | 'about'> = object>(
  flags: F,
  about: string,
  more?: M,
) {
  return Object.assign({ flags, about }, more);
}

export const SCHEDULES = ['schedule add', 'schedule list', 'schedule run', 'schedule remove'] as const;
export const SERVICE = [
  'worker',
  'serve',
  'enqueue',
  'status',
  'retry',
  'cancel',
  'dashboard',
  'webhook',
] as const;
export const COMMANDS = [
  'run',
  'plan',
  'verify',
  'reparse',
  'export',
  'report',
  'simulate',
  ...SERVICE,
  ...SCHEDULES,
] as const;

/** The commands that have options, in files too; `config` and `completion` are about these. */
export type CommandName = (typeof COMMANDS)[number] | 'config' | 'completion';

/** The commands whose options one takes: `plan` stands in the place of `run`, whatever that was given. */
export function takesOptionsOf(command: CommandName): readonly CommandName[] {
  return command === 'plan' ? ['run', 'plan'] : [command];
}

/** Options under one heading, and the commands that take them. */
export function group<
  const Command extends CommandName,
  const Options extends Readonly<Record<string, OptionSpec>>,
>(heading: string, commands: readonly Command[], options: Options) {
  return { heading, commands, options };
}
