import { dialectFor } from '../describe-api/dialects/index.js';
import type { UnfinishedRows } from '../producer/count-manifest.js';
import { accountLabel, describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { UsageError, messageOf } from '../shared/errors.js';
import { type Logger, silentLogger } from '../shared/log.js';
import { type QueueConnection, openQueue } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { readRunOrders } from '../shared/run-orders.js';
import type { UndoStack } from '../shared/undo.js';
import { DescribeWorker } from '../worker/describe-worker.js';
import { type FailureRecord, isDecidedAnew } from '../writer/failures-table.js';
import { FailuresFile } from '../writer/failures.js';
import { OutputFile } from '../writer/output-file.js';
import { newRunId, type RunFile, writeRunFile } from '../writer/run-file.js';
import { ActiveRun } from './active-run.js';
import { closeAccounts } from './close-accounts.js';
import { openEarlierFailures, rememberEarlier } from './earlier-files.js';
import { openClient } from './open-client.js';
import type { PreparedRun } from './prepare.js';
import { previewOfRetry, pricePreview } from './preview-run.js';
import { exitCodeOf } from './receipt.js';
import { accountOf } from './api-options.js';
import { RunControl } from './run-control.js';
import { RunJobs } from './run-jobs.js';
import { RunLease } from './run-lease.js';
import { RunPresence } from './run-presence.js';
import { type Preview, RUN_DEFAULTS, type RunOptions, type RunResult } from './run-options.js';

/** What manifest and output say there is to do. */
export interface Counted {
  readonly preview: Preview;
  readonly unfinished: UnfinishedRows;
}

/**
 * Runs what has been prepared and counted, to its receipt.
 * @param undo gets what the run opens
 */
export async function runPrepared(
  options: RunOptions,
  prepared: PreparedRun,
  counted: Counted,
  undo: UndoStack,
): Promise<RunResult> {
  const startedAt = performance.now();
  const logger = options.logger ?? silentLogger();
  const control = new RunControl(options.signal);
  const client = options.work === false ? undefined : await openClient(options, undo, noticesOf(options));
  const { connection, queue, limits } = await openAccount(options, prepared, logger, undo);
  const found = prepared.runFile ?? newRunFile(prepared, options);
  const { run } = found;
  const preview = await tellPreview(options, counted.preview, { connection, limits, run });
  const runFile: RunFile = {
    ...found,
    queue,
    account: accountLabel(prepared.account),
    earlierOutputs: rememberEarlier(prepared.earlier, prepared.paths.output),
    output: prepared.paths.output,
    open: true,
  };
  const onLost = (error: unknown) => control.fail(error);
  const lease = await RunLease.take(connection, run, { onLost, logger, signal: control.signal });
  undo.defer(() => lease.release());
  options.signal?.throwIfAborted();
  const { output, failures, earlierFailures } = await openFiles(options, prepared, undo);
  await writeRunFile(prepared.paths.runFile, runFile);
  options.onEvent?.({
    type: 'opened',
    run,
    manifest: prepared.manifest.path,
    output: prepared.paths.output,
  });

  const rowsBefore = output.rows;
  const presence = new RunPresence(connection, {
    run,
    account: runFile.account,
    queueName: describeQueueName(prepared.account),
    manifest: prepared.manifest.path,
    output: prepared.paths.output,
    schedule: options.schedule,
  });
  const active = new ActiveRun({
    options,
    prepared,
    preview,
    unfinished: counted.unfinished,
    run,
    connection,
    limits,
    output,
    failures,
    earlierFailures,
    control,
    logger,
    emit: (event) => options.onEvent?.(event),
    presence,
    startWorker:
      client === undefined
        ? undefined
        : () => {
            const { webhooks } = options;
            const { account } = prepared;
            return DescribeWorker.start({ connection, account, client, limits, logger, webhooks });
          },
  });
  const inFlight = await active.execute();
  await endFailures(active, failures, control);
  await endRunFile(prepared, { ...runFile, open: inFlight > 0 }, control);

  // The recount makes an index of its own: a home with ten million rows has not the memory for two.
  output.index.clear();
  const { counts, onFile } = active.home;
  const { receipt, differences } = await closeAccounts(prepared, {
    run,
    counts,
    resumedEarlier: onFile.fromEarlier,
    rowsBefore,
    complete: active.isRead,
    isStopped: control.reason !== undefined,
    mayLeave: options.limit !== undefined || options.collectOnly === true || options.onlyFailed === true,
    seconds: (performance.now() - startedAt) / 1000,
  });
  await active.forget();
  const { failedByCode } = counts;
  const stop = control.reason ?? (receipt.remaining > 0 ? options.stoppedBefore : undefined);
  const exitCode = exitCodeOf(receipt, stop, failedByCode, new Set(options.accept));
  const learnedShare = limits.share();
  await presence.tellEnd(receipt, failedByCode, stop, exitCode).catch((error: unknown) => {
    logger.debug({ error: messageOf(error) }, 'nobody else is told how the run ended');
  });
  return { preview, receipt, differences, stop, failedByCode, learnedShare, exitCode };
}

/**
 * How many images are in flight at an account for runs that nobody runs. Opens the queue only to look.
 * @throws when the queue is not there, or another process has it
 */
export async function countAbandoned(options: RunOptions): Promise<number> {
  const target = parseQueueUrl(options.queue ?? RUN_DEFAULTS.queue, options.env ?? process.env);
  const connection = await openQueue(target);
  try {
    const policy = { maxAttempts: 1, deadlineMs: 0 };
    return await new RunJobs(connection, accountOf(options), '', policy, options.signal).findAbandoned();
  } finally {
    await connection.close();
  }
}

function noticesOf({ onEvent }: RunOptions): (text: string) => void {
  return (text) => onEvent?.({ type: 'notice', text });
}

/** Connects to the queue, starts what goes along with the run there, and reads what the account allows. */
async function openAccount(options: RunOptions, prepared: PreparedRun, logger: Logger, undo: UndoStack) {
  const target = parseQueueUrl(options.queue ?? RUN_DEFAULTS.queue, options.env ?? process.env);
  refuseOtherQueue(prepared, target.label);
  // Told to end already: then neither queue nor output is to be made.
  options.signal?.throwIfAborted();
  const connection = await openQueue(target, {
    logger,
    isShared: options.work === false,
    onSlow: (text) => options.onEvent?.({ type: 'phase', text }),
  });
  undo.defer(() => connection.close());
  connection.onTrouble((...trouble) =>
    options.onEvent?.({
      type: 'notice',
      text: troubleText(...trouble),
      isOutage: trouble[0] !== 'notice',
    }),
  );
  for (const start of options.companions ?? []) undo.defer(await start(connection));
  const queueName = describeQueueName(prepared.account);
  const limits = await AccountLimits.open(connection.store, queueName, options.limits ?? {}, logger);
  return { connection, queue: target.label, limits };
}

/** Tells what there is to do, at the rate that is allowed. @returns what it told */
async function tellPreview(
  options: RunOptions,
  counted: Preview,
  at: { readonly connection: QueueConnection; readonly limits: AccountLimits; readonly run: string },
): Promise<Preview> {
  const { retryAll } = await readRunOrders(at.connection.store, at.run);
  const whole = retryAll ? previewOfRetry(counted, options.limit) : counted;
  const preview = pricePreview(whole, at.limits.configured);
  if (at.limits.lastChange !== undefined) noticesOf(options)(at.limits.lastChange);
  options.onEvent?.({ type: 'preview', preview });
  return preview;
}

/** Opens what the run writes, and the failures of earlier outputs. */
async function openFiles(options: RunOptions, prepared: PreparedRun, undo: UndoStack) {
  const { paths, outputOptions, found } = prepared;
  const earlierFailures = await openEarlierFailures(prepared, options, undo);
  const output = await OutputFile.open({ ...outputOptions, create: true, inspected: found });
  undo.defer(() => output.close());
  const failures = await FailuresFile.open({ ...outputOptions, path: paths.failures });
  undo.defer(() => failures.close());
  return { output, failures, earlierFailures };
}

/** What is in flight in one queue cannot be taken over through another. */
function refuseOtherQueue(prepared: PreparedRun, queue: string): void {
  const { runFile, account, paths } = prepared;
  if (runFile?.open !== true) return;
  if (runFile.queue === queue && runFile.account === accountLabel(account)) return;
  const { takesModel } = dialectFor({ dialect: account.dialect });
  const model = takesModel === true ? ', the same model and prompt' : '';
  throw new UsageError(
    `images of ${paths.output} are in flight at the account ${runFile.account} in the queue ${runFile.queue}: ` +
      `end the run there first, with the same --queue, --api and --account${model} (or remove ${paths.runFile} and pay for them again)`,
  );
}

function newRunFile(prepared: PreparedRun, options: RunOptions): RunFile {
  const { manifest, plan, isSimulated } = prepared;
  return {
    version: 1,
    run: options.run ?? newRunId(),
    queue: '',
    account: '',
    simulator: isSimulated,
    urlColumn: manifest.columns[plan.urlColumn] ?? '',
    keyColumn: options.keyColumn,
    baseUrl: options.baseUrl,
    open: true,
    createdAt: new Date().toISOString(),
  };
}

/** The failures file says what is failed now: not what has been described since, nor what has left the manifest. */
async function endFailures(active: ActiveRun, failures: FailuresFile, control: RunControl): Promise<void> {
  const isWhole = active.isRead && control.reason === undefined;
  const isDescribed = ({ row }: FailureRecord) => active.home.onFile.has(row);
  // What fails by its record may have the key or the image of a row that is described.
  const isOfRecord = ({ outcome }: FailureRecord) => isDecidedAnew(outcome.code);
  try {
    await failures.replace(
      (failure) =>
        !isDescribed(failure) && (!isWhole || active.home.isLeftFailed(failure.row.key ?? failure.row.image)),
      (failure) => isOfRecord(failure) || !isDescribed(failure),
    );
  } catch (error) {
    control.fail(error);
  }
}

async function endRunFile(prepared: PreparedRun, runFile: RunFile, control: RunControl): Promise<void> {
  try {
    await writeRunFile(prepared.paths.runFile, runFile);
  } catch (error) {
    control.fail(`the run file could not be written: ${messageOf(error)}`);
  }
}
