import { setMaxListeners } from 'node:events';
import { type Row, readRows } from '../producer/row-reader.js';
import { resultsQueueName } from '../shared/account.js';
import { FatalError, messageOf } from '../shared/errors.js';
import { pendingWindow } from '../shared/limits.js';
import { hasNothing, isUnsubmitted, isUntouched, isUntried } from '../shared/jobs.js';
import { debugError } from '../shared/log.js';
import { plural } from '../shared/plural.js';
import { atShutdown, retryUntilUp, shutdownTimeout } from '../shared/queue/outage.js';
import { forgetLostSubmits, readLostSubmits } from '../shared/run-counts.js';
import { dropRunOrder } from '../shared/run-leases.js';
import { workersOf } from '../shared/published.js';
import type { UndoStack } from '../shared/undo.js';
import { sayIfLong, unlessAborted } from '../shared/waiting.js';
import { DescribeWorker } from '../worker/describe-worker.js';
import { type FailureRecord, isFailedStill } from '../writer/failures.js';
import { rowsPath } from '../writer/output-paths.js';
import { packOutput } from '../writer/parquet-output.js';
import { writeRunFile } from '../writer/run-file.js';
import { affordable } from './budget.js';
import { type OpenRun, keepCounts, openRun } from './open-run.js';
import { type PreparedRun, rootsOf } from './prepare.js';
import { exitCodeOf } from './exit-code.js';
import { closeAccounts } from './receipt.js';
import { Producer } from './produce.js';
import { type Calls, RunJobs } from './run-jobs.js';
import type { Preview, RunOptions, RunResult, RunStop } from './run-options.js';
import { RunWatch, giveUp, publishStatus, readSeries } from './run-watch.js';

/**
 * Runs what has been prepared and counted until every row has its outcome on disk, or the run is stopped.
 * @param undo gets what the run opens
 */
export async function coordinate(
  options: RunOptions,
  prepared: PreparedRun,
  counted: Preview,
  undo: UndoStack,
): Promise<RunResult> {
  const run = await openRun(options, prepared, counted, undo);
  const { control, connection, client, limits, logger } = run;
  const { account } = prepared;
  const over = new AbortController();
  let watching = Promise.resolve();
  let worker: DescribeWorker | undefined;
  try {
    await recover(run);
    control.reason ??= run.spentBefore;
    const { webhooks } = options;
    const images = { ...options.images, roots: rootsOf(prepared) };
    const onNotice = (text: string) => run.emit({ type: 'notice', text });
    const about = { connection, account, client, limits, logger, webhooks, images, onNotice };
    if (client !== undefined) worker = await DescribeWorker.start({ ...about, client });
    watching = new RunWatch(run, worker).watch(over.signal);
    await produce(run);
    if (run.spentBefore !== undefined) control.windDown(run.spentBefore);
    await collect(run);
  } catch (error) {
    // A queue operation that was given up because the run ends is no failure of its own.
    if (!control.signal.aborted) control.fail(error);
  }
  over.abort();
  await watching;
  const isOpen = await putBack(run, worker);
  await endFiles(run, isOpen);
  return await closeRun(run);
}

/** Whether every row was read and taken on. */
function isWhole({ control, options, ledger }: OpenRun): boolean {
  const hasLimit = options.limit !== undefined || options.collectOnly === true;
  return ledger.isRead && control.reason === undefined && !hasLimit;
}

/**
 * Takes up what earlier starts of a run have left in the queue: results first, then jobs. Nobody has begun to work for this
 * start yet.
 */
async function recover(run: OpenRun): Promise<void> {
  const { connection, control, options, ledger, decisions, jobs, results } = run;
  const { store } = connection;
  const { signal } = control;
  // An earlier start may have left it.
  await unlessAborted(dropRunOrder(store, run.id, 'cancel'), signal);
  const { maybePaidTwice, rescued, byImage } = await unlessAborted(readLostSubmits(store, run.id), signal);
  ledger.lost = byImage;
  ledger.counts.maybePaidTwice += maybePaidTwice;
  ledger.counts.rescued += rescued;
  await results.reclaim(signal);
  await results.drained(signal);
  const living = await unlessAborted(workersOf(run.queueName).listLiving(store), signal);
  const count = await jobs.reclaim((worker) => living.has(worker));
  if (count > 0)
    run.emit({ type: 'phase', text: `taking over ${plural(count, 'image')} of a worker that has died` });
  const abandoned = await jobs.findAbandoned();
  if (abandoned > 0) {
    run.emit({
      type: 'notice',
      text: `in flight for runs that no longer have a coordinator: ${plural(abandoned, 'image')}; those that are in this manifest too are paid for once more, and counted as maybePaidTwice`,
    });
  }
  // Untried ones come again with their rows, in their order and within --limit, unless their rows are gone.
  const isKnown = (image: string) => decisions.isDescribed(image) || ledger.isAnswered(image);
  const removed = await jobs.remove(
    (job, image) => isUntried(job) || (job.data.messageId === undefined && isKnown(image)),
  );
  for (const [image, { maybePaid = 0 }] of removed) ledger.countLost(image, maybePaid);
  // A run that only collects waits for everything that is in the queue.
  await jobs.holdUnpaid(options.collectOnly === true);
  await jobs.takeUpSetAside();
  for (const [image, job] of await jobs.leftOver()) {
    if (!decisions.isDone(image, job)) decisions.find(image, job);
  }
  ledger.begin();
}

/** Makes jobs of the rows. */
async function produce(run: OpenRun): Promise<void> {
  const { prepared, control, limits, ledger } = run;
  if (control.noMore.aborted) return;
  const windowRows = () =>
    Math.min(
      pendingWindow(limits.configured, run.timing.windowMs),
      affordable(run.spending.spent, run.options),
    );
  const isLeft = (row: Row) => prepared.isInSample?.(row) === false;
  const producer = new Producer({ ...run, windowRows, isLeft }, control.noMore);
  try {
    await producer.produce(readRows(prepared.manifest, prepared.outputOptions, control.noMore));
    if (control.isWindingDown) {
      for (const image of producer.notAdded) giveUp(run, image);
    }
    ledger.isRead = !control.noMore.aborted;
  } catch (error) {
    if (control.signal.aborted) return;
    // Only what was read before the break is certain to be taken on; a queue that refuses jobs ends all of it.
    if (error instanceof FatalError) control.reason ??= { kind: 'fatal', reason: error.message };
    else control.fail(error);
  }
}

/**
 * Waits for what is pending. Once nothing more is to be submitted, what nobody has submitted yet leaves the queue, until
 * the rest has its outcomes.
 */
async function collect(run: OpenRun): Promise<void> {
  const { control, ledger, jobs, timing } = run;
  const isIdle = () => ledger.rows === 0;
  await ledger.waitUntil(() => isIdle() || control.isWindingDown, control.signal);
  // What a worker has in its hands would be submitted again when its message expires.
  if (control.isWindingDown) await retryUntilUp(run.connection, () => run.spending.close(), control.signal);
  while (control.isWindingDown && !isIdle()) {
    for (const [image, calls] of await jobs.remove(isUnsubmitted)) giveUp(run, image, calls);
    const againAt = performance.now() + timing.tickMs;
    await ledger.waitUntil(() => isIdle() || performance.now() >= againAt, control.signal);
  }
}

/**
 * Puts everything where the next run finds it.
 * @returns whether images are, or may be, left in flight
 */
async function putBack(run: OpenRun, worker: DescribeWorker | undefined): Promise<boolean> {
  const { connection, prepared, ledger, decisions, results, logger } = run;
  const { closeDeadlineMs } = run.timing;
  const deadline = shutdownTimeout(connection, closeDeadlineMs);
  setMaxListeners(0, deadline);
  const jobs = new RunJobs(connection, prepared.account, run.id, deadline);
  const removed = new Map<string, Calls>();
  const unlessAway = async (step: () => Promise<void>) => {
    try {
      await step();
    } catch (error) {
      // The run ends with that as its reason.
      if (connection.outage.isLost || messageOf(error) === run.control.reason?.reason) return;
      logger.warn(`the queue could not be tidied up: ${messageOf(error)}`);
    }
  };
  const removeUnsubmitted = () =>
    unlessAway(async () => {
      const isNeedless = needlessAfter(run.control.reason?.kind);
      for (const [image, calls] of await jobs.remove(isNeedless)) removed.set(image, calls);
    });
  // Twice: workers elsewhere would go on submitting, and ours releases unsubmitted images.
  await Promise.all([worker?.stop(), removeUnsubmitted()]);
  await removeUnsubmitted();
  await unlessAway(() => results.drained(deadline));
  // The note of an image that was put off, taken up and has ended would have a server execute the run once more.
  if (ledger.rows === 0) await unlessAway(() => jobs.takeUpSetAside());
  await unlessAway(() => unlessAborted(run.spending.refresh(), deadline));
  await run.writer.flushed();
  ledger.end(isWhole(run), (image) => decisions.isDescribed(image));
  // What cannot be acknowledged while the queue is away is reclaimed by the next run.
  const onError = debugError(logger, 'some results could not be acknowledged');
  await atShutdown(connection, closeDeadlineMs / 2, results.close(), onError);
  // What earlier starts have left is known only when the queue has said so.
  let isOpen = ledger.pending().length > 0 || (!ledger.isRead && prepared.runFile?.open === true);
  await unlessAway(async () => {
    const left = await jobs.leftOver();
    // After the last result: a job that was removed may have ended in that moment, and be counted by its result.
    for (const image of ledger.pending()) {
      const calls = left.get(image) ?? removed.get(image);
      if (calls !== undefined) ledger.countCalls(image, calls);
    }
    isOpen = [...left].some(([image, job]) => job.state !== 'failed' && !decisions.isDone(image, job));
    await connection.store.forgetQueue(resultsQueueName(run.id));
  });
  return isOpen;
}

/** Which jobs nobody needs in the queue when a run has ended for this reason. */
function needlessAfter(kind: RunStop['kind'] | undefined): Parameters<RunJobs['remove']>[0] {
  // Other settings are another account: a run that stops for them leaves it nothing that could wait there for good.
  if (kind === 'set-up') return hasNothing;
  // It goes on, or another process has it.
  if (kind === undefined || kind === 'interrupted' || kind === 'fatal') return isUntouched;
  // Nobody resumes it: what came to nothing would be set aside by a worker, and its server would execute the run again for
  // that. An image whose delivery may still come needs no coordinator.
  return (job) => isUntouched(job) || (isUnsubmitted(job) && job.data.unanswered === undefined);
}

/** The failures file says what is failed now: not what has been described since, nor what has left the manifest. */
async function endFiles(run: OpenRun, isOpen: boolean): Promise<void> {
  const { control, connection, failures, onFile, decisions, prepared, runFile, spending, timing, logger } =
    run;
  const wasMet = run.ledger.isRead && control.reason === undefined;
  const isStill = ({ row }: FailureRecord) => !wasMet || decisions.isLeftFailed(row.key ?? row.image);
  try {
    await failures.replace(
      (failure, isAdded) => isFailedStill(failure, isAdded, onFile) && (isAdded || isStill(failure)),
    );
  } catch (error) {
    control.fail(error);
  }
  try {
    await writeRunFile(prepared.paths.runFile, {
      ...runFile,
      open: isOpen,
      spent: spending.spent,
      series: readSeries(run),
    });
    const onError = debugError(logger, 'what the run has spent stays in the queue as well');
    if (!isOpen) await atShutdown(connection, timing.closeDeadlineMs, spending.forget(), onError);
  } catch (error) {
    control.fail(`the run file could not be written: ${messageOf(error)}`);
  }
}

/** A queue that is away keeps nobody waiting for what a run says at its end. */
const END_DEADLINE_MS = 2000;

/** Makes the receipt. */
async function closeRun(run: OpenRun): Promise<RunResult> {
  const { options, control, limits, preview } = run;
  await orderRows(run);
  const sayIt = () => run.emit({ type: 'phase', text: 'counting the rows of the files for the receipt' });
  const { receipt: counted, differences } = await sayIfLong(sayIt, closeAccounts(run));
  if (counted.balanced) await packRows(run);
  await captionImages(run);
  const receipt = { ...counted, output: rowsPath(counted.output) };
  await forget(run);
  const { failedByCode } = run.ledger.counts;
  // A budget that has just sufficed has stopped nothing.
  const isDone = receipt.complete && receipt.remaining === 0;
  const reason = isDone && control.reason?.kind === 'budget' ? undefined : control.reason;
  const stop = reason ?? (receipt.remaining > 0 ? options.stoppedBefore : undefined);
  const exitCode = exitCodeOf(receipt, stop, failedByCode, new Set(options.accept));
  const learnedShare = limits.share();
  const { rows, described, copied, failed, remaining, complete, seconds } = receipt;
  const published = publishStatus(run, {
    ...receipt,
    totalRows: complete ? rows : undefined,
    perSecond: seconds > 0 ? (described + copied + failed) / seconds : 0,
    stopKind: stop?.kind,
    ended: { exitCode, remaining, reason: stop?.reason },
  });
  const onError = debugError(run.logger, 'how the run ended could not be published');
  await atShutdown(run.connection, END_DEADLINE_MS, published, onError);
  return { preview, receipt, differences, stop, failedByCode, learnedShare, exitCode };
}

/** Rows were written as they were described; with `--in-order` they get the manifest's order when the run ends in order. */
async function orderRows({ control, options, output, prepared, emit }: OpenRun): Promise<void> {
  if (options.inOrder !== true || !isOrderly(control)) return;
  emit({ type: 'phase', text: 'putting the output in the order of the manifest' });
  try {
    await output.putInOrder(() => readRows(prepared.manifest, prepared.outputOptions));
  } catch (error) {
    if (options.signal?.aborted !== true) control.fail(error);
  }
}

/** A Parquet output is written when a run ends in order. */
async function packRows({ control, prepared }: OpenRun): Promise<void> {
  await prepared.dropUnchanged?.();
  if (!isOrderly(control)) return;
  const { outputOptions, paths } = prepared;
  await packOutput(outputOptions, paths.output).catch((error: unknown) => {
    control.fail(
      `${messageOf(error)}; its rows are in ${paths.working}, and the next start goes on with them`,
    );
  });
}

/** Who interrupts a run does not want to wait: its captions are written when it ends in order. */
async function captionImages({
  control,
  options,
  prepared: { paths },
  emit,
  onFile,
}: OpenRun): Promise<void> {
  const { sidecar } = options;
  if (sidecar === undefined || onFile.rows === 0 || !isOrderly(control)) return;
  try {
    const { exportOutput } = await import('./export.js');
    emit({ type: 'phase', text: `writing captions to ${sidecar.folder}` });
    const about = { ...sidecar, output: paths.output, to: 'sidecar', dest: sidecar.folder } as const;
    const { written, kept, empty } = await exportOutput({ ...about, signal: options.signal });
    const others = `${kept} that were there kept${empty > 0 ? `, ${empty} without a text left out` : ''}`;
    emit({ type: 'notice', text: `${plural(written, 'caption')} written to ${sidecar.folder}, ${others}` });
  } catch (error) {
    if (options.signal?.aborted === true) return;
    control.fail(`captions could not be written: ${messageOf(error)}`);
  }
}

function isOrderly({ reason }: OpenRun['control']): boolean {
  return !['interrupted', 'cancelled', 'fatal'].includes(reason?.kind ?? '');
}

/** The receipt is about to be printed: the next run counts from nothing, and takes up what it always does. */
async function forget(run: OpenRun): Promise<void> {
  const { connection, ledger, timing, logger } = run;
  const { maybePaidTwice, rescued } = ledger.counts;
  if (maybePaidTwice + rescued > 0) await keepCounts(run, forgetLostSubmits(connection.store, run.id));
  if (!run.retriesAll || !isWhole(run)) return;
  const dropped = dropRunOrder(connection.store, run.id, 'retryAll');
  const onError = debugError(logger, 'the next run takes permanent failures up once more');
  await atShutdown(connection, timing.closeDeadlineMs, dropped, onError);
}
