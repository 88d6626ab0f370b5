export interface OptionSpec {
  /** As commander takes them. A value in brackets follows after `=`, and only there. */
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
  /** Reads the text. `source` is the flag or the variable that it comes from, for the message. */
  readonly parse?: (text: string, source: string) => unknown;
}

type More = Omit<OptionSpec, 'flags' | 'about'>;

export function option<const F extends string>(flags: F, about: string): { flags: F; about: string };
export function option<const F extends string, M extends More>(
  flags: F,
  about: string,
  more: M,
): { flags: F; about: string } & M;
export function option(flags: string, about: string, more?: More): OptionSpec {
  return { flags, about, ...more };
}
