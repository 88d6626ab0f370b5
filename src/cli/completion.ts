import type { Command, Option } from 'commander';
import { UsageError } from '../shared/errors.js';
import { alternatives } from './text.js';

/** A command, what may follow it, and its options. */
interface Node {
  /** `run`, `schedule add`; empty for the program. */
  readonly path: string;
  readonly words: readonly string[];
  readonly about: readonly string[];
  readonly options: readonly Option[];
}

const SHELLS: Readonly<Record<string, (nodes: readonly Node[]) => string>> = {
  bash: bashScript,
  // Zsh runs what is written for bash.
  zsh: (nodes) => `autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
${bashScript(nodes)}`,
  fish: fishScript,
};

/** `bulk-describe completion <shell>`: prints a script that knows all and starts nothing. @returns 0 */
export function completion(program: Command, shell: string): number {
  const script = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
  if (script === undefined)
    throw new UsageError(`completion ${shell}: expected ${alternatives(Object.keys(SHELLS))}`);
  process.stdout.write(script(nodesOf(program)));
  return 0;
}

function nodesOf(command: Command, path = ''): Node[] {
  const { commands, options, parent } = command;
  const names = parent?.commands.map((known) => known.name()) ?? [];
  const taken: Readonly<Record<string, readonly string[]>> = {
    completion: Object.keys(SHELLS),
    config: names.filter((name) => !['config', 'completion', 'help'].includes(name)),
    help: names,
  };
  const words = taken[path] ?? commands.map((known) => known.name());
  const about = commands.map((known) => known.summary() || known.description());
  const below = commands.flatMap((known) => nodesOf(known, `${path} ${known.name()}`.trim()));
  return [{ path, words, about, options }, ...below];
}

/** What follows an option: one of some words, a file, or what nobody knows; nothing where none has to. */
function valuesOf({ flags, argChoices }: Option): readonly string[] | 'file' | 'any' | undefined {
  if (!flags.includes('<')) return undefined;
  return argChoices ?? (/<(path|folder)>/.test(flags) ? 'file' : 'any');
}

function bashScript(nodes: readonly Node[]): string {
  const flags = new Map<string, string[]>();
  for (const option of nodes.flatMap(({ options }) => options)) {
    const values = valuesOf(option);
    const action =
      values === undefined
        ? ''
        : values === 'file'
          ? 'return'
          : values === 'any'
            ? 'compopt +o default 2> /dev/null; return'
            : `candidates='${values.join(' ')}'`;
    const names = new Set([...(flags.get(action) ?? []), option.short ?? '', option.long ?? '']);
    names.delete('');
    if (action !== '') flags.set(action, [...names]);
  }
  const ofFlags = [...flags].map(([action, names]) => `    ${names.join('|')}) ${action} ;;\n`);
  const ofCommands = nodes.flatMap(({ path, words, options }) => [
    `    '${path}'/-*) candidates='${[...options.map(({ long }) => long), '--help'].join(' ')}' ;;\n`,
    words.length === 0 ? '' : `    '${path}'/*) candidates='${words.join(' ')}' ;;\n`,
  ]);
  return `_bulk_describe() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} command='' candidates=''
  COMPREPLY=()
  # Bash makes three words of --format=csv.
  if [ "$cur" = '=' ]; then cur=''; elif [ "$prev" = '=' ]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  case $prev in
${ofFlags.join('')}  esac
  if [ "$COMP_CWORD" -gt 1 ]; then command=\${COMP_WORDS[1]}; fi
  if [ "$command" = schedule ] && [ "$COMP_CWORD" -gt 2 ]; then command="schedule \${COMP_WORDS[2]}"; fi
  if [ -z "$candidates" ]; then case $command/$cur in
${ofCommands.join('')}  esac; fi
  COMPREPLY=($(compgen -W "$candidates" -- "$cur"))
}
complete -o default -F _bulk_describe bulk-describe
`;
}

function fishScript(nodes: readonly Node[]): string {
  const quoted = (text: string) => `'${text.replace(/[\\']/g, '\\$&')}'`;
  const lines = nodes.flatMap(({ path, words, about, options }) => [
    ...words.map(
      (word, index) =>
        `-n '__bulk_describe_is "${path}"' -f -a ${word} -d ${quoted(about[index]?.split('. ')[0] ?? '')}`,
    ),
    ...options.map((option) => {
      const { short = '', long = '', description } = option;
      const values = valuesOf(option);
      const value = values === undefined ? '' : values === 'file' ? ' -r -F' : ' -x';
      const choices = typeof values === 'object' ? ` -a '${values.join(' ')}'` : '';
      const name = `-l ${long.slice(2)}${short === '' ? '' : ` -s ${short.slice(1)}`}`;
      return `-n '__bulk_describe_is "${path}" "${path} *"' ${name}${value}${choices} -d ${quoted(description)}`;
    }),
  ]);
  return `function __bulk_describe_is
    set -l words (commandline -opc)
    set -e words[1]
    for pattern in $argv
        string match -q -- "$pattern" "$words" && return 0
    end
    return 1
end
${lines.map((line) => `complete -c bulk-describe ${line}\n`).join('')}`;
}
