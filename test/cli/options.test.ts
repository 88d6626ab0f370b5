import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { COMMANDS, type CommandOption, optionsOf } from '../../src/cli/options.js';
import { createProgram } from '../../src/cli/program.js';

const README = fileURLToPath(new URL('../../README.md', import.meta.url));
const MARKERS = /(?<=<!-- options:[^\n]*-->\n\n)[^]*(?=\n\n<!-- \/options -->)/;

/** The options of `run` that the README shows, in its order, and where more is said of them. */
const SHOWN: Readonly<Record<string, string>> = {
  output: '',
  api: '',
  tokenFile: '',
  account: '',
  queue: '',
  rate: '',
  pollRate: '',
  maxInFlight: '',
  dialect: 'docs/dialects.md',
  attempts: '',
  deadline: '',
  limit: '',
  accept: '',
  stopFailing: '',
  webhookUrl: 'docs/webhooks.md',
  dashboard: 'docs/dashboard.md',
  dryRun: '',
  json: '',
};

/** The README's table of options, formatted as Prettier does. */
function optionTable(): string {
  const options = new Map(optionsOf('run').map((option) => [option.name, option]));
  const rows = Object.entries(SHOWN).map(([name, link]) => rowOf(options.get(name), link));
  const table = [['option', 'environment', 'default', ''], ...rows];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const lines = table.map((row) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`);
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [...lines.slice(0, 1), rule, ...lines.slice(1)].join('\n');
}

function rowOf(option: CommandOption | undefined, link: string): string[] {
  if (option === undefined) throw new Error('the README shows an option that run does not take');
  const { flags, about, env = '', default: preset = '' } = option;
  const names = flags.replace(/ \[(.*)\]$/, '[=<$1>]').split(', ');
  const isCode = /[:/<]|^[\d\w]+$/.test(preset);
  return [
    names.map(code).join(', '),
    code(env),
    isCode ? code(preset) : preset,
    link === '' ? about : `${about}: [${link}](${link})`,
  ];
}

function code(text: string): string {
  return text === '' ? '' : `\`${text}\``;
}

test('the README shows the options as they are; with UPDATE_README=1 this test writes them there', async () => {
  const readme = await readFile(README, 'utf8');
  const written = readme.replace(MARKERS, () => optionTable());
  if (process.env['UPDATE_README'] === '1') await writeFile(README, written);
  else expect(written).toBe(readme);
  expect(readme).toMatch(MARKERS);
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
