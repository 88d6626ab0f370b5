import { setMaxListeners } from 'node:events';
import { realpath } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname } from 'node:path';
import { dialectFor } from '../describe-api/dialects/index.js';
import { keptColumnsOf } from '../producer/columns.js';
import { accountLabel, describeQueueName } from '../shared/account.js';
import { AccountLimits } from '../shared/account-limits.js';
import { UsageError } from '../shared/errors.js';
import { type Logger, debugError, silentLogger } from '../shared/log.js';
import { plural } from '../shared/plural.js';
import { RUNS, meanAnswerMs } from '../shared/published.js';
import { openQueue } from '../shared/queue/connection.js';
import { troubleText } from '../shared/queue/outage.js';
import { parseQueueUrl } from '../shared/queue/queue-url.js';
import { keepLostSubmits } from '../shared/run-counts.js';
import { readRunOrders, takeRunLease } from '../shared/run-leases.js';
import { RunSpending } from '../shared/run-spending.js';
import type { UndoStack } from '../shared/undo.js';
import { unlessAborted } from '../shared/waiting.js';
import { FailuresFile } from '../writer/failures.js';
import { OutputFile } from '../writer/output-file.js';
import { layoutOf } from '../writer/output-table.js';
import { ResultsConsumer } from '../writer/results-consumer.js';
import { type DamagedRunFileError, type RunFile, newRunId, writeRunFile } from '../writer/run-file.js';
import { openClient } from './account-worker.js';
import { accountOf } from './api-options.js';
import { PayBudget, budgetStop } from './budget.js';
import { Ledger } from './ledger.js';
import { OutcomeWriter } from './outcome-writer.js';
import { finishStop } from './finish-by.js';
import { type PreparedRun, rootsOf } from './prepare.js';
import { previewOfRetry, pricePreview } from './preview.js';
import { RowDecisions } from './row-decisions.js';
import { FailingManifest, RunControl } from './run-control.js';
import { RunJobs } from './run-jobs.js';
import { SeriesMeter } from './run-series.js';
import { type Preview, RUN_DEFAULTS, RUN_TIMING, type RunEvent, type RunOptions } from './run-options.js';

/** All that a run works with. */
export type OpenRun = Awaited<ReturnType<typeof openRun>>;

/**
 * Opens the queue, takes the run's lease, and opens its files. Then its results are fetched.
 * @param undo gets the closing of all that
 */
export async function openRun(options: RunOptions, prepared: PreparedRun, counted: Preview, undo: UndoStack) {
  const opened = await openAll(options, prepared, counted, undo);
  const { id, connection, output, failures, control, logger } = opened;
  const { account, earlier, outputOptions } = prepared;
  const failing = new FailingManifest(options.stopFailing ?? RUN_DEFAULTS.stopFailing);
  const onFile = outputOptions.index;
  onFile.startPass();
  const { limit = Infinity } = options;
  const paysNothing = options.collectOnly === true || opened.spentBefore !== undefined;
  const ledger = new Ledger(new PayBudget(paysNothing ? 0 : limit));
  const writer = new OutcomeWriter({
    ...{ ledger, onFile, output, earlier, failures, control, failing },
    keepLostSubmits: (counts, counted) =>
      keepCounts(opened, keepLostSubmits(connection.store, id, counts, counted)),
  });
  // What was published is newer than the file where the start before was killed; the embedded queue does not keep it.
  const published = await unlessAborted(RUNS.find(connection.store, id), control.signal);
  let countsTokens = (options.prices?.perMillionIn ?? options.prices?.perMillionOut) !== undefined;
  return {
    ...opened,
    /** The rows on file, of the output and earlier ones; this run's pass over the manifest. */
    onFile,
    /** Rows that the output held when the run started. */
    rowsBefore: onFile.rows,
    jobs: new RunJobs(connection, account, id, control.signal, options),
    results: new ResultsConsumer(
      connection,
      id,
      async (result) => {
        // Before it makes room for another image: how many of them are affordable depends on what it has cost.
        if (options.maxCost !== undefined) await checkSpending(opened);
        if (countsTokens && result.outcome.status === 'described' && result.inputTokens === undefined) {
          countsTokens = false;
          const text =
            'the API does not say what its answers cost in tokens: --price-in and --price-out count nothing';
          opened.emit({ type: 'notice', text });
        }
        return await writer.settle(result);
      },
      logger,
    ),
    ledger,
    decisions: new RowDecisions({ ...opened, ledger, onFile }, options.onlyFailed),
    writer,
    failing,
    series: new SeriesMeter(published?.series ?? opened.runFile.series, Date.now()),
  };
}

type Opened = Awaited<ReturnType<typeof openAll>>;

async function openAll(options: RunOptions, prepared: PreparedRun, counted: Preview, undo: UndoStack) {
  const startedAt = performance.now();
  const { paths, manifest } = prepared;
  const logger = options.logger ?? silentLogger();
  const emit = (event: RunEvent) => options.onEvent?.(event);
  const control = new RunControl(options.signal);
  const warn = (text: string) => emit({ type: 'notice', text });
  const client = options.work === false ? undefined : await openClient(options, undo, warn);
  const { connection, queue } = await openConnection(options, prepared, control, logger, undo);
  const queueName = describeQueueName(prepared.account);
  const runFile = runFileOf(prepared, counted, options, queue);
  const id = runFile.run;
  // Before anything is changed that a coordinator which has the run goes by.
  const onWait = (text: string) => emit({ type: 'phase', text });
  undo.defer(await takeRunLease(connection, id, { control, logger, onWait }));
  const limits = await AccountLimits.open(connection.store, queueName, options.limits ?? {}, logger);
  const { retryAll } = await readRunOrders(connection.store, id);
  const whole = retryAll ? previewOfRetry(counted, options.limit) : counted;
  const spending = await RunSpending.open(connection.store, id, runFile.spent, options.maxCalls);
  const answerMs = await meanAnswerMs(connection.store, queueName);
  const preview = pricePreview(whole, limits.configured, options, spending.spent, answerMs);
  if (limits.lastChange !== undefined) warn(limits.lastChange);
  emit({ type: 'preview', preview });
  options.signal?.throwIfAborted();
  const { outputOptions, failedBefore } = prepared;
  const output = await OutputFile.open(outputOptions, prepared.found);
  undo.defer(() => output.close());
  const failures = await FailuresFile.open({ ...outputOptions, path: paths.failures });
  undo.defer(() => failures.close());
  await writeRunFile(paths.runFile, runFile);
  emit({ type: 'opened', run: id, manifest: manifest.path, output: paths.output });
  return {
    ...{ id, options, logger, emit, control, prepared, runFile, output, failures, failedBefore },
    ...{ preview, connection, queueName, limits, startedAt, spending },
    /** Set where earlier starts have spent the budget: what is in flight, and waits for its rows, is finished all the same. */
    spentBefore: budgetStop(spending.spent, options) ?? finishStop(options),
    /** Whether permanent failures are taken up too. */
    retriesAll: retryAll || options.retryAll === true,
    /** Of the API; undefined where others work. */
    client,
    timing: { ...RUN_TIMING, ...options.timing },
    /** What is published of the run and does not change while it goes on. */
    about: {
      run: id,
      account: runFile.account,
      queueName,
      manifest: manifest.path,
      output: paths.output,
      schedule: options.schedule,
      host: hostname(),
      pid: process.pid,
      startedAt: Date.now(),
    },
  };
}

/** Takes nothing more on once the budget is spent; what is in flight is finished, unless it is time to end. */
export async function checkSpending({ options, control, spending, spentBefore }: Opened): Promise<void> {
  await spending.refresh();
  if (spentBefore !== undefined) return;
  const stop = budgetStop(spending.spent, options);
  if (stop !== undefined) control.windDown(stop);
  const due = finishStop(options);
  if (due !== undefined) control.stop(due);
}

/** The queue keeps the counts until a receipt says them; without the queue they are this process's alone. */
export async function keepCounts({ timing, logger }: Opened, kept: Promise<void>): Promise<void> {
  await unlessAborted(kept, AbortSignal.timeout(timing.closeDeadlineMs)).catch(
    debugError(logger, 'it is not kept how many submits may have been paid twice, or were rescued'),
  );
}

/** Connects to the queue, and starts what goes along with the run there. */
async function openConnection(
  options: RunOptions,
  prepared: PreparedRun,
  control: RunControl,
  logger: Logger,
  undo: UndoStack,
) {
  const target = targetOf(options);
  refuseOtherQueue(prepared, target.label);
  await refuseOtherRoot(prepared);
  // Interrupted already: then neither queue nor output is to be made.
  options.signal?.throwIfAborted();
  const connection = await openQueue(target, {
    logger,
    isShared: options.work === false,
    onSlow: (text) => options.onEvent?.({ type: 'phase', text }),
  });
  undo.defer(() => connection.close());
  connection.outage.on((...trouble) => {
    const [state, reason] = trouble;
    if (state === 'lost') {
      // An operation that failed before that was found says less.
      control.reason = undefined;
      control.fail(reason);
      return;
    }
    const isOutage = state !== 'notice';
    options.onEvent?.({ type: 'notice', text: troubleText(...trouble), isOutage });
  });
  // A run shows its own results, and those of no other.
  const own = prepared.paths.output;
  const mayRead = (output: string) => {
    if (output === own) return Promise.resolve(own);
    return Promise.reject(
      new UsageError(`This run shows its own results alone, and ${output} is another's.`),
    );
  };
  for (const start of options.companions ?? [])
    undo.defer(await start(connection, rootsOf(prepared), mayRead));
  return { connection, queue: target.label };
}

function targetOf({ queue = RUN_DEFAULTS.queue, env = process.env }: RunOptions) {
  return parseQueueUrl(queue, env);
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

/**
 * What is in flight is read below the folder that it was found in, which may have moved: then it is not there any more.
 * @throws {UsageError} when it is, and another one is given
 */
async function refuseOtherRoot({ runFile, outputOptions: { imageRoot }, paths }: PreparedRun): Promise<void> {
  if (runFile?.open !== true || runFile.imageRoot === undefined || imageRoot === undefined) return;
  const before = await realpath(runFile.imageRoot).catch(() => undefined);
  if (before === undefined || before === imageRoot.real) return;
  throw new UsageError(
    `images of ${paths.output} are in flight from the folder ${runFile.imageRoot}, and this run has ${imageRoot.path}: ` +
      `end the run there first (or remove ${paths.runFile} and pay for them again)`,
  );
}

/** The run file from now on: that of the run which goes on, or a new one. */
function runFileOf(prepared: PreparedRun, counted: Preview, options: RunOptions, queue: string): RunFile {
  const { outputOptions, account, earlier, paths } = prepared;
  const found = prepared.runFile ?? {
    version: 1,
    run: options.run ?? newRunId(),
    simulator: options.api === 'simulator',
    createdAt: new Date().toISOString(),
  };
  return {
    ...found,
    queue,
    account: accountLabel(account),
    // Those beside the output by name, so that they can move together.
    earlierOutputs: earlier?.files.map(({ path }) =>
      dirname(path) === dirname(paths.output) ? basename(path) : path,
    ),
    output: paths.output,
    urlColumn: counted.urlColumn,
    keyColumn: options.keyColumn ?? prepared.runFile?.keyColumn,
    baseUrl:
      outputOptions.imageRoot === undefined ? (options.baseUrl ?? prepared.runFile?.baseUrl) : undefined,
    imageRoot: outputOptions.imageRoot?.path,
    folder: outputOptions.areNames === true ? true : undefined,
    ...keptColumnsOf(options, prepared.runFile),
    delimiter: outputOptions.delimiter,
    ...layoutOf(outputOptions),
    answerColumns: [...outputOptions.answerColumns],
    prompt: outputOptions.prompt === undefined ? undefined : options.prompt,
    open: true,
  };
}

/** Says what a new run would cost: what is in flight at the queue for runs without a coordinator. */
export async function explainDamage(error: DamagedRunFileError, options: RunOptions): Promise<UsageError> {
  let atStake = 'images that are in flight now';
  try {
    const connection = await openQueue(targetOf(options));
    // Each job that is looked at listens.
    if (options.signal !== undefined) setMaxListeners(0, options.signal);
    const jobs = new RunJobs(connection, accountOf(options), '', options.signal);
    const count = await jobs.findAbandoned().finally(() => connection.close());
    atStake = `${plural(count, 'image')} in flight that no other run waits for`;
  } catch {
    // The message is about the run file; a queue that cannot be asked is another matter.
  }
  return new UsageError(
    `${error.message}; restore it, or remove it to begin a new run that keeps the output's rows (${atStake} would be paid for again, and counted as maybePaidTwice)`,
    { cause: error },
  );
}
