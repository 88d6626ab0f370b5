import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { dialectFor } from '../describe-api/dialects/index.js';
import { PayBudget } from '../producer/produce.js';
import { accountLabel, describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { UsageError } from '../shared/errors.js';
import { type Logger, debugError, silentLogger } from '../shared/log.js';
import type { RunStatus } from '../shared/published.js';
import { type QueueConnection, openQueue } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { type LostSubmits, keepLostSubmits } from '../shared/run-counts.js';
import { readRunOrders, takeRunLease } from '../shared/run-leases.js';
import type { UndoStack } from '../shared/undo.js';
import { unlessAborted } from '../shared/waiting.js';
import { DescribedRows } from '../writer/output-index.js';
import { FailuresFile } from '../writer/failures.js';
import { OutputFile } from '../writer/output-file.js';
import { ResultsConsumer } from '../writer/results-consumer.js';
import { type RunFile, newRunId, writeRunFile } from '../writer/run-file.js';
import { openClient } from './account-worker.js';
import { accountOf } from './api-options.js';
import { Ledger } from './ledger.js';
import { OutcomeWriter } from './outcome-writer.js';
import { type PreparedRun, failuresOfEarlier, rememberEarlier } from './prepare.js';
import { previewOfRetry, pricePreview } from './preview.js';
import { RowLookup } from './row-lookup.js';
import { FailingManifest, RunControl } from './run-control.js';
import { RunJobs } from './run-jobs.js';
import { type Preview, RUN_DEFAULTS, RUN_TIMING, type RunEvent, type RunOptions } from './run-options.js';

/** What does not change while a run goes on. */
type AboutRun = Pick<
  RunStatus,
  'run' | 'account' | 'queueName' | 'manifest' | 'output' | 'schedule' | 'host' | 'pid' | 'startedAt'
>;

/** All that a run works with. */
export type OpenRun = ReturnType<typeof assemble>;

/**
 * Opens the queue, takes the run's lease, and opens its files.
 * @param undo gets the closing of all that
 */
export async function openRun(
  options: RunOptions,
  prepared: PreparedRun,
  counted: Preview,
  undo: UndoStack,
): Promise<OpenRun> {
  return assemble(await openAll(options, prepared, counted, undo));
}

async function openAll(options: RunOptions, prepared: PreparedRun, counted: Preview, undo: UndoStack) {
  const startedAt = performance.now();
  const { paths, manifest } = prepared;
  const logger = options.logger ?? silentLogger();
  const emit = (event: RunEvent) => options.onEvent?.(event);
  const control = new RunControl(options.signal);
  const warn = (text: string) => emit({ type: 'notice', text });
  const client = options.work === false ? undefined : await openClient(options, undo, warn);
  const { connection, queue, queueName, limits } = await openAccount(options, prepared, logger, undo);
  const runFile = runFileOf(prepared, options, queue);
  const id = runFile.run;
  const preview = await emitPreview(options, counted, { connection, limits, run: id });
  undo.defer(await takeRunLease(connection, id, control, logger));
  options.signal?.throwIfAborted();
  const files = await openFiles(options, prepared, undo);
  await writeRunFile(paths.runFile, runFile);
  emit({ type: 'opened', run: id, manifest: manifest.path, output: paths.output });
  const about: AboutRun = {
    run: id,
    account: runFile.account,
    queueName,
    manifest: manifest.path,
    output: paths.output,
    schedule: options.schedule,
    host: hostname(),
    pid: process.pid,
    startedAt: Date.now(),
  };
  const timing = { ...RUN_TIMING, ...options.timing };
  return {
    ...{ id, about, options, timing, logger, emit, control, prepared, runFile, ...files },
    ...{ preview, connection, queueName, limits },
    /** By `performance.now()`. */
    startedAt,
    /** Of the API; undefined where others work. */
    client,
  };
}

/** Brings the parts of an open run together. From here on its results are fetched. */
function assemble(opened: Awaited<ReturnType<typeof openAll>>) {
  const { id, options, prepared, connection, output, failures, control, logger } = opened;
  const { account, earlier } = prepared;
  const policy = {
    maxAttempts: options.attempts ?? RUN_DEFAULTS.attempts,
    deadlineMs: options.deadlineMs ?? RUN_DEFAULTS.deadlineMs,
  };
  const jobs = new RunJobs(connection, account, id, { policy, signal: control.signal });
  const failing = new FailingManifest(options.stopFailing ?? RUN_DEFAULTS.stopFailing);
  const onFile = new DescribedRows(output.index, earlier?.index);
  onFile.startPass();
  const limit = options.collectOnly === true ? 0 : (options.limit ?? Infinity);
  const ledger = new Ledger(new PayBudget(limit));
  const writer = new OutcomeWriter({
    ledger,
    onFile,
    output,
    earlier,
    failures,
    onBroken: (error) => control.fail(error),
    keepLostSubmits: (counts) => keepCounts(opened, counts),
    onOutcome: ({ outcome }) => failing.add(outcome),
  });
  return {
    ...opened,
    /** The rows on file, of the output and earlier ones; this run's pass over the manifest. */
    onFile,
    /** Rows that the output held when the run started. */
    rowsBefore: output.rows,
    jobs,
    results: new ResultsConsumer(connection, id, (result) => writer.settle(result), logger),
    ledger,
    lookup: new RowLookup({ ...opened, ledger, onFile }, options),
    writer,
    failing,
  };
}

/** The queue keeps the counts until a receipt says them; without the queue they are this process's alone. */
export async function keepCounts(
  { connection, id, timing, logger }: Awaited<ReturnType<typeof openAll>>,
  counts: LostSubmits | undefined,
): Promise<void> {
  const kept = keepLostSubmits(connection.store, id, counts);
  await unlessAborted(kept, AbortSignal.timeout(timing.closeDeadlineMs)).catch(
    debugError(logger, 'it is not kept how many submits may have been paid twice, or were rescued'),
  );
}

/** Connects to the queue, starts what goes along with the run there, and reads what the account allows. */
async function openAccount(options: RunOptions, prepared: PreparedRun, logger: Logger, undo: UndoStack) {
  const target = parseQueueUrl(options.queue ?? RUN_DEFAULTS.queue, options.env ?? process.env);
  refuseOtherQueue(prepared, target.label);
  // Interrupted already: then neither queue nor output is to be made.
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
  return { connection, queue: target.label, queueName, limits };
}

/** Says what there is to do, at the rate that is allowed. */
async function emitPreview(
  options: RunOptions,
  counted: Preview,
  at: { readonly connection: QueueConnection; readonly limits: AccountLimits; readonly run: string },
): Promise<Preview> {
  const { retryAll } = await readRunOrders(at.connection.store, at.run);
  const whole = retryAll ? previewOfRetry(counted, options.limit) : counted;
  const preview = pricePreview(whole, at.limits.configured);
  const { lastChange } = at.limits;
  if (lastChange !== undefined) options.onEvent?.({ type: 'notice', text: lastChange });
  options.onEvent?.({ type: 'preview', preview });
  return preview;
}

/** Opens what the run writes, and the failures of earlier outputs. */
async function openFiles(options: RunOptions, prepared: PreparedRun, undo: UndoStack) {
  const { paths, outputOptions, found } = prepared;
  const earlierFailures = await failuresOfEarlier(prepared, options);
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

/** The run file from now on: that of the run which goes on, or a new one. */
function runFileOf(prepared: PreparedRun, options: RunOptions, queue: string): RunFile {
  const { manifest, plan, isSimulated, account, earlier, paths } = prepared;
  const found = prepared.runFile ?? {
    version: 1,
    run: options.run ?? newRunId(),
    simulator: isSimulated,
    urlColumn: manifest.columns[plan.urlColumn] ?? '',
    keyColumn: options.keyColumn,
    baseUrl: options.baseUrl,
    createdAt: new Date().toISOString(),
  };
  return {
    ...found,
    queue,
    account: accountLabel(account),
    earlierOutputs: rememberEarlier(earlier, paths.output),
    output: paths.output,
    open: true,
  };
}

/**
 * How many images are in flight at an account for runs without a coordinator. Opens the queue only to look.
 * @throws when the queue is not there, or another process has it
 */
export async function countAbandoned(options: RunOptions): Promise<number> {
  const target = parseQueueUrl(options.queue ?? RUN_DEFAULTS.queue, options.env ?? process.env);
  const connection = await openQueue(target);
  try {
    const { signal } = options;
    // Each job that is looked at listens.
    if (signal !== undefined) setMaxListeners(0, signal);
    return await new RunJobs(connection, accountOf(options), '', { signal }).findAbandoned();
  } finally {
    await connection.close();
  }
}
