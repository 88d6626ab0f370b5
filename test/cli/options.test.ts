import { execFileSync, spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { format, resolveConfig } from 'prettier';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { keyOf, takesList } from '../../src/cli/config.js';
import { COMMANDS } from '../../src/cli/option-spec.js';
import { type CommandOption, optionsOf } from '../../src/cli/options.js';
import { createProgram } from '../../src/cli/program.js';

const PAGE = fileURLToPath(new URL('../../docs/options.md', import.meta.url));
const MARKERS = /(?<=<!-- options:[^\n]*-->\n\n)[^]*(?=\n\n<!-- \/options -->)/;

/** Where more is said of an option. */
const PAGES: Readonly<Record<string, string>> = {
  dialect: 'dialects.md',
  model: 'dialects.md',
  webhookUrl: 'webhooks.md',
  dashboard: 'dashboard.md',
  config: 'configuration.md',
};

/** The page's table of options, formatted as Prettier does. */
function optionTable(): string {
  const table = [['option', 'environment', 'default', ''], ...optionsOf('run').map(rowOf)];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const lines = table.map((row) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`);
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [...lines.slice(0, 1), rule, ...lines.slice(1)].join('\n');
}

function rowOf({ name, flags, about, env = '', default: preset = '' }: CommandOption): string[] {
  const names = flags.replace(/ \[(.*)\]$/, '[=<$1>]').split(', ');
  const page = PAGES[name];
  return [
    names.map(code).join(', '),
    code(env),
    preset.includes(' ') ? preset : code(preset),
    page === undefined ? about : `${about}: [${page}](${page})`,
  ];
}

function code(text: string): string {
  return text === '' ? '' : `\`${text}\``;
}

test('docs/options.md shows the options as they are; with UPDATE_OPTIONS=1 this test writes them there', async () => {
  const page = await readFile(PAGE, 'utf8');
  const written = page.replace(MARKERS, () => optionTable());
  expect(page).toMatch(MARKERS);
  await expectWritten(PAGE, written);
});

test.each(COMMANDS)('%s takes its options under the names by which it looks for them', (name) => {
  let command = createProgram();
  for (const word of name.split(' ')) {
    const found = command.commands.find((known) => known.name() === word);
    if (found === undefined) throw new Error(`there is no command ${name}`);
    command = found;
  }
  const names = optionsOf(name).map((option) => option.name);
  expect(command.options.map((option) => option.attributeName())).toEqual(names);
});

const SCHEMA = fileURLToPath(new URL('../../bulk-describe.schema.json', import.meta.url));
const MANUAL = fileURLToPath(new URL('../../man/bulk-describe.1', import.meta.url));

type Schema = Readonly<Record<string, unknown>>;

function propertyOf(option: CommandOption): Schema {
  const { flags, about, parse: { choices } = {}, default: preset } = option;
  const description = preset === undefined ? about : `${about} (default: ${preset})`;
  if (flags.includes('[')) return { description, type: ['boolean', 'integer', 'string'] };
  if (!flags.includes('<')) return { description, type: 'boolean' };
  if (choices !== undefined) return { description, enum: choices };
  const one = { type: ['string', 'number'] };
  if (!takesList(option)) return { description, ...one };
  return { description, anyOf: [one, { type: 'array', items: one }] };
}

/** What a configuration file may hold, for editors. */
function configSchema(): Schema {
  const properties = new Map<string, Schema[]>();
  const sections = new Map<string, CommandOption[]>();
  const add = (key: string, property: Schema) => {
    const known = properties.get(key) ?? [];
    const isKnown = known.some((each) => JSON.stringify(each) === JSON.stringify(property));
    properties.set(key, isKnown ? known : [...known, property]);
  };
  for (const command of COMMANDS) {
    const options = optionsOf(command).filter(({ onlyTyped }) => onlyTyped !== true);
    // Of a request the description is its own: the server has defaults.
    for (const option of options) if (option.isServers !== true) add(keyOf(option), propertyOf(option));
    sections.set(command, options);
  }
  // What means the same to all is said once.
  const single = [...properties].filter(([, variants]) => variants.length === 1);
  const definitions = Object.fromEntries(single.map(([key, [property = {}]]) => [key, property]));
  const ref = (key: string) => ({ $ref: `#/definitions/${key}` });
  for (const [key] of single) properties.set(key, [ref(key)]);
  for (const [command, options] of sections) {
    const own = options.map((option): [string, Schema] => {
      const [key, property] = [keyOf(option), propertyOf(option)];
      return [key, JSON.stringify(definitions[key]) === JSON.stringify(property) ? ref(key) : property];
    });
    add(command, closed(`Options of ${command} alone`, Object.fromEntries(own)));
  }
  const all = [...properties].map(([key, variants]): [string, Schema] => [
    key,
    variants.length === 1 ? (variants[0] ?? {}) : { anyOf: variants },
  ]);
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    ...closed('Options of bulk-describe: see docs/configuration.md', {
      $schema: { type: 'string' },
      ...Object.fromEntries(all),
    }),
    definitions,
  };
}

function closed(description: string, properties: Schema): Schema {
  return { description, type: 'object', additionalProperties: false, properties };
}

/** Everything that the help says, as a manual page. */
function manualPage(): string {
  const program = createProgram();
  const commands = program.commands.flatMap((known) => [known, ...known.commands]);
  const byHeading = new Map<string, Map<string, CommandOption>>();
  for (const option of [...COMMANDS, 'config' as const].flatMap(optionsOf)) {
    const group = byHeading.get(option.heading) ?? new Map<string, CommandOption>();
    byHeading.set(option.heading, group);
    if (!group.has(option.flags)) group.set(option.flags, option);
  }
  const variables = [...byHeading.values()].flatMap((group) => [...group.values()]);
  return [
    '.\\" Written by UPDATE_OPTIONS=1 npx vitest run test/cli/options.test.ts',
    '.TH BULK\\-DESCRIBE 1 "" "bulk\\-describe" "User Commands"',
    '.SH NAME',
    `bulk\\-describe \\- ${roff('a manifest of image URLs in, a file of prompts out')}`,
    '.SH SYNOPSIS',
    ...commands.flatMap((command) => [
      `.B bulk\\-describe ${roff(nameOf(command))}`,
      roff(usageOf(command)),
      '.br',
    ]),
    '.SH COMMANDS',
    ...commands.flatMap(manualOf),
    '.SH OPTIONS',
    'Which command takes an option is said there; the same name may mean another thing elsewhere.',
    ...[...byHeading].flatMap(([heading, group]) => [
      `.SS "${roff(heading.replace(/:$/, ''))}"`,
      ...[...group.values()].flatMap(manualOfOption),
    ]),
    '.SH ENVIRONMENT',
    'An option wins over its variable, and that over the configuration file.',
    ...variables.flatMap(({ env, flags, file }) =>
      env === undefined
        ? []
        : [
            '.TP',
            `.B ${env}`,
            roff(file === undefined ? `as ${flags}` : `what would be in the file of ${flags}`),
          ],
    ),
    '.SH FILES',
    '.TP',
    `.B ${roff('bulk-describe.config.json, bulk-describe.config.yaml')}`,
    roff('in the current folder: options, by their long names; for one command below its name.'),
    '',
  ].join('\n');
}

/** `run`, `schedule add`. */
function nameOf(command: Command): string {
  const { parent } = command;
  return parent?.parent ? `${parent.name()} ${command.name()}` : command.name();
}

function usageOf(command: Command): string {
  return command.usage().replace(/ ?\[options\]/, '');
}

function manualOf(command: Command): string[] {
  let help = '';
  command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
  const after = help.slice(command.helpInformation().length);
  const names = command.options.map(({ flags }) => flags.split(/[ =]/).find((word) => word.startsWith('--')));
  const text = after.trim() === '' ? [] : ['.PP', '.nf', ...after.trim().split('\n').map(roff), '.fi'];
  const options = names.length === 0 ? [] : ['.PP', roff(`Options: ${names.join(', ')}`)];
  return [
    `.SS "${roff(`${nameOf(command)} ${usageOf(command)}`.trim())}"`,
    roff(command.description()),
    ...options,
    ...text,
  ];
}

function manualOfOption({ flags, about, env, default: preset }: CommandOption): string[] {
  const extra = [preset && `default: ${preset}`, env && `environment: ${env}`].filter(Boolean).join('; ');
  const names = flags.replace(/ \[(.*)\]$/, '[=<$1>]');
  return ['.TP', `.B ${roff(names)}`, roff(extra === '' ? about : `${about} (${extra})`)];
}

/** Text that the formatter leaves alone. */
function roff(text: string): string {
  const escaped = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('"', '\\(dq')
    .replaceAll('`', '\\(ga')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti');
  return escaped.startsWith('.') ? `\\&${escaped}` : escaped;
}

async function expectWritten(path: string, content: string): Promise<void> {
  if (process.env['UPDATE_OPTIONS'] === '1') await writeFile(path, content);
  expect(await readFile(path, 'utf8')).toBe(content);
}

test('bulk-describe.schema.json is as the options are; with UPDATE_OPTIONS=1 this test writes it', async () => {
  const style = await resolveConfig(SCHEMA);
  await expectWritten(SCHEMA, await format(JSON.stringify(configSchema()), { ...style, parser: 'json' }));
});

test('man/bulk-describe.1 is as the help is; with UPDATE_OPTIONS=1 this test writes it', async () => {
  await expectWritten(MANUAL, manualPage());
});

test.skipIf(spawnSync('groff', ['--version']).status !== 0)('the manual is set without a warning', () => {
  const { stdout, stderr } = spawnSync('groff', ['-man', '-ww', '-Tutf8', MANUAL], { encoding: 'utf8' });
  expect(stderr).toBe('');
  for (const name of COMMANDS) expect(stdout).toContain(name);
  expect(stdout).toContain('--max-in-flight');
});

test('the schema takes the example of the documents, and nothing that is misspelt', async () => {
  const schema = z.fromJSONSchema(configSchema());
  const page = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8');
  const example: unknown = parse(/```yaml\n([^]*?)```/.exec(page)?.[1] ?? '');
  const isValid = (content: unknown) => schema.safeParse(content).success;
  expect(isValid(example)).toBe(true);
  const right = {
    $schema: 'x',
    'no-header': true,
    dashboard: true,
    param: ['a=1'],
    format: 'csv',
    port: 8080,
  };
  expect(isValid({ ...right, dashboard: { port: 1 }, run: { rate: '1/s' } })).toBe(true);
  expect(isValid(right)).toBe(true);
  const wrong = [{ rat: 1 }, { run: { rat: 1 } }, { usage: 'yes' }, { format: 'xlsx' }, { rate: ['1/s'] }];
  for (const content of [...wrong, { output: 'o.csv' }, { token: 'x' }, { run: { 'dry-run': true } }])
    expect([content, isValid(content)]).toEqual([content, false]);
});

test('the package holds the schema and the manual', () => {
  const text = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { encoding: 'utf8' });
  expect(text).toContain('"bulk-describe.schema.json"');
  expect(text).toContain('"man/bulk-describe.1"');
});
