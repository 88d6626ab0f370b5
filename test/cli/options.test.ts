import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
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
  if (process.env['UPDATE_OPTIONS'] === '1') await writeFile(PAGE, written);
  else expect(written).toBe(page);
  expect(page).toMatch(MARKERS);
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
