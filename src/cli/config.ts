import { UsageError } from '../shared/errors.js';
import { nearest } from '../shared/nearest.js';
import { type Setting, settingsOf } from './command.js';
import { keyOf } from './config-file.js';
import { COMMANDS } from './option-spec.js';
import type { OptionsOf } from './options.js';
import { printable } from './text.js';

/** `bulk-describe config [command]`: what holds for it where nothing is typed, and where that is from. @returns 0 */
export async function config(options: OptionsOf<'config'>, ...words: string[]): Promise<number> {
  const asked = words.length === 0 ? 'run' : words.join(' ');
  const name = COMMANDS.find((known) => known === asked);
  if (name === undefined) {
    const near = nearest(asked, COMMANDS);
    const hint = near === undefined ? 'see `bulk-describe help --all`' : `did you mean ${near}?`;
    throw new UsageError(`config: ${asked} is no command: ${hint}`);
  }
  const { path, settings } = await settingsOf(name, options.config);
  const shown = settings
    .filter(({ option }) => option.name !== 'config')
    .map((setting) => ({ key: keyOf(setting.option), ...shownOf(setting) }));
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

/** A setting for people and programs: secrets stay hidden. */
function shownOf({ option, value, source, place }: Setting) {
  const { flags, isSecret, file, env } = option;
  // Without `--dashboard` there is none, at no port.
  const preset = flags.includes('[') ? null : (option.default ?? null);
  if (value === undefined) return { value: preset, from: preset === null ? null : 'default', place: null };
  if (source === 'config')
    return { value: shownValue(isSecret === true, value), from: 'file', place: place ?? null };
  // A variable holds what would be in the file that a flag names.
  const isHidden = isSecret === true || file !== undefined;
  return { value: shownValue(isHidden, value), from: 'environment', place: env ?? null };
}

function shownValue(isHidden: boolean, value: string): string {
  if (isHidden) return '(hidden)';
  return value.replaceAll('\n', ', ').replace(/^(\w+:\/\/[^:@/]*):.*@/, '$1:***@');
}
