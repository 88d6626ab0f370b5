import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type KeptColumns,
  type ColumnRef,
  checkOwnColumns,
  columnAt,
  findKeptColumns,
  findTitleColumn,
  findUrlColumn,
  hasLocalImages,
  valuesOf,
} from '../producer/columns.js';
import { FILE_COLUMN, isFolder } from '../producer/folder-format.js';
import { IMAGE_ENDING, type ImageRoot, parseBaseUrl, resolveImageUrl } from '../producer/image-url.js';
import type { Manifest } from '../producer/manifest.js';
import { parsePromptTemplate } from '../producer/prompt-template.js';
import { type Row, namingColumns } from '../producer/row-reader.js';
import { areSeveral, findManifests, openManifests } from '../producer/several-manifests.js';
import { accountLabel } from '../shared/account.js';
import { UsageError, manifestsText, shownPath } from '../shared/errors.js';
import { PROMPT_COLUMNS } from '../shared/jobs.js';
import { realFolder } from '../shared/local-file.js';
import type { UndoStack } from '../shared/undo.js';
import { EarlierOutputs } from '../writer/earlier-outputs.js';
import { readFailures } from '../writer/failures.js';
import { OutputIndex } from '../writer/output-index.js';
import {
  type RunPaths,
  assertManifestIsSafe,
  defaultOutputPath,
  lockOutput,
  outputOf,
  realName,
  rowsPath,
  runPaths,
} from '../writer/output-paths.js';
import { type OutputOptions, inspectOutput, layoutOf } from '../writer/output-table.js';
import { unpackOutput } from '../writer/parquet-output.js';
import { PROMPT_ROW_COLUMNS } from '../writer/prompt-rows-table.js';
import { type RunFile, readRunFile, refuseCopiedRunFile } from '../writer/run-file.js';
import { accountOf, answerColumnsOf, apiOf } from './api-options.js';
import type { RunOptions } from './run-options.js';

/** Everything a run needs to know before it touches anything. */
export type PreparedRun = Awaited<ReturnType<typeof prepareRun>> & {
  /** Whether a row is of the images of `--sample`; undefined where all are. */
  readonly isInSample?: ((row: Pick<Row, 'key' | 'image'>) => boolean) | undefined;
};

/**
 * Opens the manifest, finds its columns, locks the output (but for a dry run) and looks at it, and refuses what
 * cannot work. Nothing but the lock is created.
 * @param undo gets the closing of what was opened
 * @throws {UsageError} one line: what is wrong, where, and what to do
 * @throws {BusyError} when another process has the output
 */
export async function prepareRun(options: RunOptions, undo: UndoStack) {
  const account = accountOf(options);
  const paths = findPaths(options);
  const files = await findFiles(options, paths);
  for (const file of files) if (file !== '-') await assertManifestIsSafe(resolve(file), paths);
  const keyColumn = await findKeyColumn(options, paths);
  const rows = await openRows({ ...options, keyColumn }, files, paths, undo);
  if (options.inOrder === true && !rows.manifest.replayable) {
    throw new UsageError(
      `--in-order: ${rows.manifest.name} can be read only once, and its order is needed when the run ends: save it as a file first, or leave the flag away`,
    );
  }
  const folder = dirname(paths.output);
  if (!(await isFolder(folder))) {
    throw new UsageError(
      `the output's folder ${folder} does not exist: make it, or name another output with -o`,
    );
  }
  if (options.dryRun !== true) await lockOutput(paths, undo);
  const runFile = await readRunFile(paths.runFile);
  if (runFile !== undefined) await refuseCopiedRunFile(paths.runFile, paths.output, runFile);
  const { escapeFormulas = runFile?.escapeFormulas, promptsAs = runFile?.promptsAs } = options;
  if (promptsAs === 'rows') checkPromptRows(options, rows.manifest);
  const answerColumnsBefore = runFile && (runFile.answerColumns ?? PROMPT_COLUMNS);
  const path = options.dryRun === true ? rowsPath(paths.output) : paths.working;
  const begun = { ...rows.outputOptions, path, escapeFormulas, promptsAs, answerColumnsBefore };
  const outputOptions = withKept(begun, options, runFile);
  const dropUnchanged = options.dryRun ? undefined : await unpackOutput(outputOptions, paths.output);
  if (dropUnchanged !== undefined) undo.defer(dropUnchanged);
  const earlier = await openEarlierOutputs(options.earlierOutputs, runFile, outputOptions);
  const found = await inspectOutput(outputOptions);
  // One that is there, whatever its name, is from a version that did not ask.
  const isNoTable = /\.(json|xlsx|gz)$/i.test(paths.output) || IMAGE_ENDING.test(paths.output);
  if (found === undefined && isNoTable) {
    throw new UsageError(
      `the output ${paths.output} would hold CSV: end its name in .csv, .tsv, .jsonl or .parquet`,
    );
  }
  if (escapeFormulas === true && found !== undefined && runFile?.escapeFormulas !== true) {
    throw new UsageError(
      `the output ${paths.output} was begun without --escape-formulas: name another with -o`,
    );
  }
  const opened = { ...rows, outputOptions, paths, found, runFile, earlier, account };
  await refuseForeignOutput(opened, options);
  // Who only collects takes nothing of earlier files up again.
  const others = options.collectOnly === true ? [] : (earlier?.files ?? []);
  const failedBefore = await readFailures([...others, { path: paths.output }], outputOptions, (row) =>
    outputOptions.index.has(row),
  );
  /** `dropUnchanged` removes the working file that was unpacked from a Parquet output, where nothing has come to it. */
  return { ...opened, failedBefore, dropUnchanged };
}

/** The key column: the one that is named, else that of the run which goes on, which is said. */
async function findKeyColumn(
  { keyColumn, onEvent }: Pick<RunOptions, 'keyColumn' | 'onEvent'>,
  { runFile }: RunPaths,
): Promise<string | undefined> {
  if (keyColumn !== undefined) return keyColumn;
  const remembered = (await readRunFile(runFile))?.keyColumn;
  const text = `rows are known by the column ${remembered}, as in earlier starts; --key-column would name another one`;
  if (remembered !== undefined) onEvent?.({ type: 'notice', text });
  return remembered;
}

/** A run reads its own images, and those of no other. */
export function rootsOf({ outputOptions: { imageRoot } }: PreparedRun): readonly string[] {
  return imageRoot === undefined ? [] : [imageRoot.real];
}

/** @throws {UsageError} when there are no lines for prompts to be had */
function checkPromptRows({ count, fields, schema }: RunOptions, { columns, name }: Manifest): void {
  if (fields !== undefined || schema !== undefined || count === 1) {
    const flag = count === 1 ? '--count 1' : fields === undefined ? '--schema' : '--fields';
    throw new UsageError(`--prompts-as rows is for several prompts an image: leave it away with ${flag}`);
  }
  checkOwnColumns(columns, PROMPT_ROW_COLUMNS, name);
}

/** Finds the columns that the output has. @throws {UsageError} see `findKeptColumns` */
export function withKept(
  options: OutputOptions,
  asked: KeptColumns,
  remembered: KeptColumns | undefined,
): OutputOptions {
  const kept = findKeptColumns(options.columns, asked, remembered, namingColumns(options));
  return { ...options, kept };
}

/** Opens a manifest, and finds what identifies its rows and where their images are. */
export async function openRows(
  options: Omit<RunOptions, 'api'>,
  files: readonly [string, ...string[]],
  paths: RunPaths,
  undo: UndoStack,
  answerColumns: readonly string[] = answerColumnsOf(options),
) {
  const manifest = await openManifests(files, {
    ...options,
    name: manifestsText([options.manifest, ...(options.moreManifests ?? [])]),
  });
  undo.defer(() => manifest.close());
  const { columns, sample } = manifest;
  checkOwnColumns(columns, answerColumns, manifest.name, options.usage);
  const { keyColumn } = options;
  const urlColumn = options.urlColumn ?? (manifest.format === 'folder' ? FILE_COLUMN : undefined);
  const baseUrl = options.baseUrl === undefined ? undefined : parseBaseUrl(options.baseUrl);
  const imageColumn = findUrlColumn(columns, sample, { urlColumn, baseUrl });
  const imageRoot = await findImageRoot(options, manifest, imageColumn);
  const key = keyColumn === undefined ? undefined : columnAt('--key-column', columns, keyColumn, sample);
  const outputOptions: OutputOptions = {
    path: paths.output,
    columns,
    delimiter: /\.tsv$/i.test(paths.output) ? '\t' : manifest.format === 'csv' ? manifest.delimiter : ',',
    ...layoutOf(options),
    answerColumns,
    listSeparator: options.listSeparator,
    urlColumn: imageColumn,
    baseUrl,
    imageRoot,
    areNames: manifest.format === 'folder',
    keyColumn: key,
    titleColumn: findTitleColumn(columns, sample, options.titleColumn, [imageColumn.index]),
    prompt: options.prompt === undefined ? undefined : parsePromptTemplate(options.prompt, columns, sample),
    index: new OutputIndex({ keyed: key !== undefined }),
    newColumns: options.newColumns,
    signal: options.signal,
  };
  return { manifest, outputOptions };
}

/**
 * The folder of local images: the one that is named; else the manifest's, where its images are such.
 * @throws {UsageError} when it cannot be, or none of the first images is there
 */
async function findImageRoot(
  { imageRoot, baseUrl }: Pick<RunOptions, 'imageRoot' | 'baseUrl'>,
  { files, name, format, sample }: Manifest,
  column: ColumnRef,
): Promise<ImageRoot | undefined> {
  if (imageRoot !== undefined && baseUrl !== undefined)
    throw new UsageError(
      '--image-root and --base-url: paths are relative to one of them: leave the other away',
    );
  if (imageRoot !== undefined && format === 'folder')
    throw new UsageError('--image-root: the images of a folder are relative to it: leave it away');
  if (imageRoot !== undefined) return openImageRoot(imageRoot);
  if (format === 'folder' && baseUrl === undefined) return openImageRoot(files[0] ?? '.');
  if (baseUrl !== undefined || !hasLocalImages(sample, column)) return undefined;
  const [folder = '.', ...others] = new Set(
    files.map((file) => (file === '-' ? '.' : dirname(resolve(file)))),
  );
  if (others.length > 0) {
    throw new UsageError(
      `${name}: the manifests are in several folders: name the one that the paths of their images are relative to with --image-root <folder>`,
    );
  }
  const root = await openImageRoot(folder);
  const images = valuesOf(sample, column).flatMap((cell) => {
    const resolved = resolveImageUrl(cell, undefined, root);
    return 'url' in resolved && resolved.url.startsWith('file:') ? [fileURLToPath(resolved.url)] : [];
  });
  const [first] = images;
  if (first === undefined || images.some((file) => existsSync(file))) return root;
  throw new UsageError(
    `${name}: there is no ${shownPath(first)}: name the folder that its paths are relative to with --image-root <folder>, or with --base-url <url> where they are on the web`,
  );
}

/** @throws {UsageError} when there is no such folder */
export async function openImageRoot(path: string): Promise<ImageRoot> {
  return { path: resolve(path), real: await realFolder(path, '--image-root') };
}

function findPaths(options: RunOptions): RunPaths {
  if (options.manifest === '-' && options.output === undefined) {
    throw new UsageError('the manifest comes from stdin: say with -o <path> where the output goes');
  }
  if (options.output === undefined && areSeveral([options.manifest, ...(options.moreManifests ?? [])])) {
    throw new UsageError('several manifests are run as one: say with -o <path> where the output goes');
  }
  const simulator = options.api === 'simulator';
  const output = options.output ?? defaultOutputPath(options.manifest, { simulator });
  const paths = runPaths(realName(output));
  const packed = outputOf(paths.output);
  // A run to the Parquet file would take these rows for its own, and remove them. One that was begun before may go on.
  if (packed !== paths.output && !existsSync(paths.runFile)) {
    throw new UsageError(
      `the output ${paths.output} has the name of the working file of ${packed}: name another one with -o`,
    );
  }
  return paths;
}

/** The files of the manifests. @throws {UsageError} see `findManifests` */
export async function findFiles(
  { manifest, moreManifests = [] }: Pick<RunOptions, 'manifest' | 'moreManifests'>,
  paths: RunPaths,
) {
  return await findManifests([manifest, ...moreManifests], Object.values<string>({ ...paths }));
}

/**
 * Nobody could tell prompts of a simulator from those of an API in one file, or in files that count together.
 * @throws {UsageError} when the API is of the other kind
 */
async function refuseForeignOutput(
  { found, runFile, account, paths, earlier }: Omit<PreparedRun, 'failedBefore' | 'dropUnchanged'>,
  options: RunOptions,
): Promise<void> {
  const isSimulated = options.api === 'simulator';
  const own = found === undefined ? [] : [{ path: paths.output, ...found }];
  for (const { path, hasSimulated, hasReal } of [...own, ...(earlier?.files ?? [])]) {
    if (hasReal && isSimulated) {
      throw new UsageError(
        `${path} holds prompts of a real API: let the simulator write to another output, with -o`,
      );
    }
    // A simulator may well be listening there.
    const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(account.host);
    if (!hasSimulated || isSimulated || isLoopback) continue;
    const itsRunFile = path === paths.output ? runFile : await readRunFile(runPaths(path).runFile);
    if (itsRunFile?.account === accountLabel(account)) continue;
    throw new UsageError(
      `${path} holds prompts of a simulator, and the API is ${apiOf(options).replace(/\?.*/s, '')}: name another output with -o, or move that one away`,
    );
  }
}

/**
 * Reads the earlier files that count with an output: those that are given, and those that the run file remembers, since
 * rows were left to them already.
 * @returns undefined when there are none
 * @throws {UsageError} see `EarlierOutputs.read`
 */
export async function openEarlierOutputs(
  given: readonly string[] | undefined,
  runFile: Pick<RunFile, 'earlierOutputs'> | undefined,
  options: OutputOptions,
): Promise<EarlierOutputs | undefined> {
  const folder = dirname(options.path);
  const remembered = (runFile?.earlierOutputs ?? []).map((path) => resolve(folder, path));
  const paths = new Set([...(given ?? []).map((path) => resolve(path)), ...remembered]);
  return paths.size === 0 ? undefined : await EarlierOutputs.read([...paths], options);
}
