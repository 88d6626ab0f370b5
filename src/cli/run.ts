import { captionFlagIn } from '../run/captions.js';
import { RUN_DEFAULTS, type RunEvent, type RunOptions, type RunResult } from '../run/run-options.js';
import { verifyOutput } from '../run/receipt.js';
import type { Ping } from '../service/ping.js';
import { outcomeText } from '../service/run-request.js';
import { BulkDescribeError, InterruptedEarlyError, UsageError, messageOf } from '../shared/errors.js';
import { count, plural } from '../shared/plural.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { companionsOf } from './companions.js';
import { longFlag } from './option-spec.js';
import { type OptionsOf, optionsOf } from './options.js';
import { accountOptionsOf, limitsWarning, pricesOf } from './settings.js';
import { listenForSignals } from './process.js';
import { planJson, previewLines, receiptLines, unbalancedLine } from './summary.js';
import { Terminal } from './terminal.js';
import { passwordNote, print, printJson, shellQuote, withoutPassword } from './text.js';

/** `bulk-describe run <manifest...>`. @returns the exit code */
export async function run(options: OptionsOf<'run'>, ...manifests: [string, ...string[]]): Promise<number> {
  const terminal = new Terminal(process.stderr, options);
  const ping = await pingOf(options, terminal);
  try {
    const result = await describe(options, terminal, manifests, (event) => {
      if (event.type === 'opened') ping?.start(`${event.manifest} -> ${event.output}`);
      showEvent(event, terminal, options);
    });
    const { exitCode, stop, differences, receipt } = result;
    printResult(result, manifests[0], options.json === true, terminal);
    const unbalanced = differences.length > 0 ? 'the receipt does not balance' : undefined;
    const outcome = { outcome: 'ended', exitCode, reason: stop?.reason ?? unbalanced, receipt } as const;
    await ping?.end(exitCode, `${receipt?.output ?? ''}: ${outcomeText(outcome)}`);
    return exitCode;
  } catch (error) {
    await pingFailure(ping, error);
    throw error;
  }
}

/** `bulk-describe plan <manifest...>`. @returns 2 where `--check-urls` has found bad ones, else 0 */
export async function plan(options: OptionsOf<'plan'>, ...manifests: [string, ...string[]]): Promise<number> {
  const terminal = new Terminal(process.stderr, options);
  const onEvent = (event: RunEvent) => event.type === 'phase' && terminal.phase(event.text);
  const { preview } = await describe({ ...options, dryRun: true }, terminal, manifests, onEvent);
  if (options.json === true) printJson(planJson(preview, Date.now()));
  else print(...previewLines(preview, new Date()));
  return Object.keys(preview.checked?.bad ?? {}).length > 0 ? 2 : 0;
}

/** A dry run is none. @throws {UsageError} */
async function pingOf(
  { ping: url, dryRun }: OptionsOf<'run'>,
  terminal: Terminal,
): Promise<Ping | undefined> {
  if (url === undefined || dryRun === true) return undefined;
  const { Ping, checkPingUrl, isPerSchedule } = await import('../service/ping.js');
  if (isPerSchedule(checkPingUrl(url, '--ping')))
    throw new UsageError('--ping: {schedule} is for serve, whose runs have schedules: name the check itself');
  return new Ping(url, (line) => terminal.warn(line));
}

async function pingFailure(ping: Ping | undefined, error: unknown): Promise<void> {
  await ping?.end(error instanceof BulkDescribeError ? error.exitCode : 1, messageOf(error));
}

/** Of a run whose options cannot be used, such as a file with a token that is not there. */
export async function pingRefusal(options: OptionsOf<'run'>, error: unknown): Promise<void> {
  await pingFailure(await pingOf(options, new Terminal(process.stderr, {})), error);
}

async function describe(
  options: OptionsOf<'run'> & Pick<RunOptions, 'checkUrls'>,
  terminal: Terminal,
  [manifest, ...moreManifests]: [string, ...string[]],
  onEvent: (event: RunEvent) => void,
): Promise<RunResult> {
  const { dryRun, work } = options;
  const api = accountOptionsOf(options);
  checkOwnQueue(options, api);
  if (options.serveImages !== undefined && work === false)
    throw new UsageError('--serve-images is for workers, which submit the images: leave --no-work away');
  const signals = listenForSignals((name) => {
    const what = dryRun === true ? 'stopping' : 'finishing what is on the wire; once more to quit at once';
    terminal.say(`${name}: ${what}`);
  });
  try {
    const { describeManifest } = await import('../run/describe-manifest.js');
    return await describeManifest({
      ...options,
      ...api,
      ...{ manifest, moreManifests, env: process.env, prices: pricesOf(options) },
      sidecar: sidecarOf(options),
      // Without a worker here others decide how images are sent.
      images: work === false ? undefined : api.images,
      companions: companionsOf(options, api, terminal),
      input: process.stdin,
      signal: signals.signal,
      logger: terminal.logger,
      onEvent,
    });
  } finally {
    terminal.end();
    signals.dispose();
  }
}

/** @throws {UsageError} for what is said of captions that nobody asks for */
function sidecarOf({ sidecar, sidecarName, promptColumn, ar, overwrite }: OptionsOf<'run'>) {
  const options = { sidecarName, promptColumn, ar, overwrite };
  if (sidecar !== undefined) return { folder: sidecar, ...options };
  const flag = captionFlagIn(options) ?? (overwrite === undefined ? undefined : '--overwrite');
  if (flag !== undefined) throw new UsageError(`${flag} needs --sidecar <folder> too`);
  return undefined;
}

/** An embedded queue belongs to one process: no other can work or receive for it. @throws {UsageError} */
function checkOwnQueue(
  { work, webhookListen, queue = RUN_DEFAULTS.queue }: OptionsOf<'run'>,
  { webhooks }: Pick<RunOptions, 'webhooks'>,
): void {
  if (parseQueueUrl(queue, process.env).kind !== 'embedded') return;
  if (work === false)
    throw new UsageError(
      '--no-work needs --queue redis://<host>: no other process can work for the embedded queue',
    );
  if (webhooks !== undefined && webhookListen === undefined)
    throw new UsageError(
      '--webhook-url needs --webhook-listen <host:port> too with the embedded queue, since no other process can receive for it',
    );
}

function showEvent(event: RunEvent, terminal: Terminal, api: Pick<RunOptions, 'api' | 'dialect'>): void {
  switch (event.type) {
    case 'preview': {
      for (const line of previewLines(event.preview, new Date())) terminal.say(line);
      const warning = limitsWarning(event.preview.limits, api);
      if (warning !== undefined) terminal.warn(warning);
      return;
    }
    case 'phase':
      terminal.phase(event.text);
      return;
    case 'notice':
      terminal.warn(event.text);
      return;
    case 'progress':
      terminal.progress(event.progress);
      return;
    case 'opened':
  }
}

function printResult(result: RunResult, manifest: string, isJson: boolean, terminal: Terminal): void {
  const { preview, receipt, stop } = result;
  if (receipt === undefined) {
    if (isJson) printJson(planJson(preview, Date.now()));
  } else if (!isJson) {
    print(...receiptLines(result, resumeCommand(process.argv.slice(2), manifest)));
  } else {
    printJson(receipt);
    if (!receipt.balanced) terminal.warn(unbalancedLine(result));
    if (stop !== undefined) terminal.warn(`stopped: ${stop.reason}`);
  }
}

/** The command that goes on with a run, without what is secret in it. */
export function resumeCommand(args: readonly string[], manifest: string): string {
  const isGiven = (flag: string) => (argument: string) =>
    argument === flag || argument.startsWith(`${flag}=`);
  const hidden = optionsOf('run')
    .filter(({ isSecret }) => isSecret === true)
    .map(({ flags }) => longFlag(flags))
    .filter((flag) => args.some(isGiven(flag)));
  // A date is over by then, and a time of day comes again.
  const isDated = args.some((argument, at) =>
    args[at - 1] === '--finish-by' ? argument.length > 5 : /^--finish-by=.{6}/.test(argument),
  );
  const left = isDated ? [...hidden, '--finish-by'] : hidden;
  const shown = args.filter(
    (argument, at) => !left.some((flag) => isGiven(flag)(argument) || args[at - 1] === flag),
  );
  const command = ['bulk-describe', ...shown.map(withoutPassword)].map(shellQuote).join(' ');
  const input = manifest === '-' ? ' < the same rows' : '';
  const note = `    (the secrets of ${hidden.join(' and ')} are left out here: put them in)`;
  return command + input + passwordNote(args) + (hidden.length === 0 ? '' : note);
}

/**
 * `bulk-describe verify <manifest...> <output>`.
 * @returns 0 when every row is described or accepted, and none twice; 2 otherwise
 */
export async function verify(
  { json = false, ...options }: OptionsOf<'verify'>,
  manifest: string,
  ...others: string[]
): Promise<number> {
  const output = others.pop() ?? '';
  const recount = await verifyOutput({
    ...{ ...options, manifest, moreManifests: others, output },
    input: process.stdin,
  });
  const { rows, earlier, ...counts } = recount;
  if (json) {
    printJson(recount);
  } else {
    print(`${count(rows)} rows in the manifest`);
    for (const [name, value] of Object.entries(counts)) print(`${count(value).padStart(12)} ${name}`);
    if (earlier !== undefined) print(`${count(earlier)} of those described are in earlier outputs`);
  }
  return recount.described + (recount.accepted ?? 0) === recount.rows && recount.twice === 0 ? 0 : 2;
}

/** `bulk-describe reparse <output>`. @returns 0 when every kept answer fits now; 2 otherwise */
export async function reparse(options: OptionsOf<'reparse'>, output: string): Promise<number> {
  const { reparseOutput } = await import('../run/reparse.js');
  const { described, left, added, rowsBefore } = await reparseOutput({ ...options, output });
  print(`${count(described)} described from kept answers, ${count(left)} left as they are`);
  if (added.length > 0 && rowsBefore > 0)
    print(`new in the output, and empty in its ${plural(rowsBefore, 'earlier row')}: ${added.join(', ')}`);
  return left === 0 ? 0 : 2;
}

/** `bulk-describe export <output>`. @returns 0 */
export async function exportRows(options: OptionsOf<'export'>, output: string): Promise<number> {
  const { to, output: dest } = options;
  if (to === undefined || dest === undefined)
    throw new UsageError('export needs --to <format> and -o <path>: see `bulk-describe export --help`');
  const { exportOutput } = await import('../run/export.js');
  const { written, kept, empty } = await exportOutput({ ...options, output, to, dest });
  const counts = [`${count(written)} written to ${dest}`];
  if (kept > 0) counts.push(`${count(kept)} that were there kept (--overwrite replaces them)`);
  if (empty > 0) counts.push(`${count(empty)} without a text left out`);
  print(counts.join(', '));
  return 0;
}

/** `bulk-describe report <output>`. @returns 0 */
export async function report(options: OptionsOf<'report'>, output: string): Promise<number> {
  const terminal = new Terminal(process.stderr, { progress: true });
  const signals = listenForSignals();
  const { writeReport } = await import('../dashboard/report.js');
  const writing = writeReport({
    ...{ ...options, output, dest: options.output },
    prices: pricesOf(options),
    signal: signals.signal,
    onProgress: (text) => terminal.phase(text),
  }).catch((error: unknown) => {
    if (!signals.signal.aborted) throw error;
    throw new InterruptedEarlyError('interrupted: no report was written', { cause: error });
  });
  const { path, bytes, described, failed, shown, missing } = await writing.finally(() => {
    terminal.end();
    signals.dispose();
  });
  const parts = [`${count(described)} described and ${count(failed)} failed`];
  if (shown < described + failed) parts.push(`the newest ${count(shown)} of them are in it (--limit)`);
  if (missing !== undefined && missing > 0) parts.push(`${plural(missing, 'picture')} could not be had`);
  print(`${path} (${(bytes / 1e6).toFixed(1)} MB): ${parts.join('; ')}`);
  return 0;
}
