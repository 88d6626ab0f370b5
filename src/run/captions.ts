import { mkdir } from 'node:fs/promises';
import { posix, resolve } from 'node:path';
import { resolveImageUrl } from '../producer/image-url.js';
import { type PromptTemplate, parsePromptTemplate } from '../producer/prompt-template.js';
import { type RowPlan, readRows } from '../producer/row-reader.js';
import { UsageError, fileTrouble, shownPath } from '../shared/errors.js';
import { cellAt } from '../shared/json-cells.js';
import { keptOf } from '../writer/output-table.js';
import { untilBroken } from './count-rows.js';
import type { PreparedRun } from './prepare.js';

/** How images are named in a trainer's dataset, and which text they get. */
export interface CaptionOptions {
  /** With columns in it, `{{id}}`; by default an image's own file name counts. */
  readonly sidecarName?: string | undefined;
  /** The column with the text. */
  readonly promptColumn?: string | undefined;
  /** False drops `--ar W:H` at the end of the text. */
  readonly ar?: boolean | undefined;
  /** Whether files that are there are written anew. */
  readonly overwrite?: boolean | undefined;
}

/** The first flag that says how captions are made; undefined where none is given. */
export function captionFlagIn({ sidecarName, promptColumn, ar }: CaptionOptions): string | undefined {
  if (sidecarName !== undefined) return '--sidecar-name';
  if (promptColumn !== undefined) return '--prompt-column';
  return ar === false ? '--no-ar' : undefined;
}

/** Room for what atomic writing puts behind a name: no file system takes more than 255 bytes. */
const MOST_NAME_BYTES = 240;
/** What Windows takes for devices, whatever the ending. */
const RESERVED = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i;
const CAPTION_ENDING = '.txt';
const UNSAFE = /[/\\\p{Cc}]/u;

/** An image's name: with its folder where it is on this machine, and its ending apart. */
interface ImageName {
  readonly stem: string;
  readonly ending: string;
  readonly isLocal: boolean;
}

/** Gives images their names, or those of their captions, and refuses those that cannot be files of their own. */
export class ImageNames {
  readonly #taken = new Map<string, string | undefined>();
  readonly #template: PromptTemplate | undefined;

  /**
   * @param plan with indexes into `columns`
   * @param captions where they are, and files that none may be; without it names are those of the images, which local ones
   *   have already
   * @throws {UsageError} when `sidecarName` names no column
   */
  constructor(
    columns: readonly string[],
    private readonly plan: RowPlan,
    { sidecarName }: CaptionOptions,
    private readonly captions?: { readonly folder: string; readonly own: readonly string[] },
  ) {
    if (sidecarName === undefined) return;
    this.#template = parsePromptTemplate(sidecarName, columns, undefined, '--sidecar-name');
    if (this.#template === undefined)
      throw new UsageError(
        `--sidecar-name ${JSON.stringify(sidecarName)} gives all images one name: write a column's value into it, as in '{{id}}'`,
      );
  }

  /**
   * @param row which it is, for messages
   * @param image what it is known by
   * @returns undefined for a row whose image has had its turn
   * @throws {UsageError} when the name collides with another image's, is none, or a caption would be a file of the run
   */
  take(cells: readonly string[], row: string, image: string | undefined): ImageName | undefined {
    const name = this.#nameOf(cells, row);
    const file = `${name.stem}${this.captions === undefined ? name.ending : CAPTION_ENDING}`;
    const trouble = troubleOf(file, name);
    if (trouble !== undefined)
      throw this.#refusal(`${row}: ${JSON.stringify(shownPath(file))} cannot be a file's name (${trouble})`);
    const own = this.captions?.own.find((path) => path === sidecarPath(this.captions?.folder ?? '', name));
    if (own !== undefined)
      throw new UsageError(`${row}: ${shownPath(own)} would be a caption's file: name another folder`);
    const isThere = this.captions === undefined && name.isLocal;
    const folded = isThere ? file : file.normalize('NFC').toLowerCase();
    if (!this.#taken.has(folded)) {
      this.#taken.set(folded, image);
      return name;
    }
    if (this.#taken.get(folded) === image) return undefined;
    throw this.#refusal(`${row}: another image is named ${JSON.stringify(shownPath(file))} too`);
  }

  #nameOf(cells: readonly string[], row: string): ImageName {
    const { urlColumn, baseUrl, imageRoot, areNames } = this.plan;
    const cell = cellAt(cells[urlColumn.index] ?? '', urlColumn.path);
    const resolved = resolveImageUrl(cell, baseUrl, imageRoot, areNames);
    if ('problem' in resolved) throw new UsageError(`${row}: its image cannot be told: ${resolved.problem}`);
    const local = /^file:(.*)$/s.exec(resolved.identity ?? '')?.[1];
    const isLocal = local !== undefined;
    const { dir, name, ext } = posix.parse(local ?? lastPart(resolved.url));
    const ending = isLocal ? ext : decode(ext);
    const template = this.#template;
    if (template === undefined || (isLocal && this.captions === undefined))
      return { stem: isLocal ? posix.join(dir, name) : decode(name), ending, isLocal };
    const stem = template.fill(template.columns.map((column) => cells[column] ?? ''));
    return { stem, ending, isLocal: false };
  }

  #refusal(trouble: string): UsageError {
    const remedy =
      this.#template === undefined
        ? "name images by a column with --sidecar-name '{{id}}'"
        : 'give --sidecar-name a column whose values can be names, each its own';
    return new UsageError(`${trouble}: ${remedy}`);
  }
}

/** The file name that a URL ends in; nothing where the image is in the URL itself. */
function lastPart(url: string): string {
  const { protocol, pathname } = new URL(url);
  if (protocol === 'data:') return '';
  return pathname.slice(pathname.lastIndexOf('/') + 1);
}

/** Where an escape is none, the text stays as it is. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function troubleOf(file: string, { stem, isLocal }: ImageName): string | undefined {
  if (/^\.*$/.test(posix.basename(stem))) return 'there is no name';
  if (Buffer.byteLength(posix.basename(file)) > MOST_NAME_BYTES) return `over ${MOST_NAME_BYTES} bytes`;
  // The name of a file that is there is one.
  if (isLocal) return undefined;
  if (UNSAFE.test(file)) return 'slashes or control characters are in it';
  return RESERVED.test(stem) ? 'it is a device in Windows' : undefined;
}

/**
 * Finds the column with the text of captions: the one that is named, else the only one for answers, or the first prompt.
 * @throws {UsageError} when it does not exist, or there are several
 */
export function captionColumn(
  columns: readonly string[],
  answerColumns: readonly string[],
  { promptColumn }: CaptionOptions,
): number {
  const [only] = answerColumns.length === 1 ? answerColumns : answerColumns.filter((n) => n === 'prompt_1');
  const name = promptColumn ?? only;
  if (name === undefined)
    throw new UsageError(`say which field captions are made of: --prompt-column ${answerColumns.join('|')}`);
  const index = columns.indexOf(name);
  if (index !== -1) return index;
  throw new UsageError(
    `--prompt-column ${name}: the output has no such column (it has ${columns.join(', ')})`,
  );
}

/**
 * Refuses captions that could not be written when the run ends, before anything is paid.
 * @throws {UsageError} one line
 */
export async function checkSidecars(
  { manifest, paths, outputOptions }: PreparedRun,
  folder: string,
  options: CaptionOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!manifest.replayable)
    throw new UsageError(
      `--sidecar: ${manifest.name} can be read only once, and names are looked at before anything is paid: save it as a file, or \`export\` later`,
    );
  const columns = keptOf(outputOptions, manifest.columns);
  const { answerColumns } = outputOptions;
  captionColumn([...columns, ...answerColumns], answerColumns, options);
  const { index, path } = outputOptions.urlColumn;
  const urlColumn = { index: columns.indexOf(manifest.columns[index] ?? ''), path };
  const own = [...manifest.files.map((file) => resolve(file)), ...Object.values<string>({ ...paths })];
  const names = new ImageNames(columns, { ...outputOptions, urlColumn }, options, { folder, own });
  for await (const rows of untilBroken(readRows(manifest, outputOptions, signal))) {
    for (const { cells, line, image } of rows) {
      if (image === undefined) continue;
      names.take(keptOf(outputOptions, cells), `line ${line} of ${manifest.name}`, image);
    }
  }
  signal?.throwIfAborted();
}

export function sidecarPath(folder: string, { stem }: ImageName): string {
  return resolve(folder, stem + CAPTION_ENDING);
}

/** @throws {UsageError} */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((error: unknown) => {
    throw new UsageError(`the folder ${shownPath(path)} cannot be made: ${fileTrouble(error)}`);
  });
}
