import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Clock } from '../../test/helpers/clock.js';
import { UndoStack } from '../../src/shared/undo.js';
import { onAbandon } from './abandon.js';
import { countPayments, type PaymentCounts } from './count-payments.js';
import { countRows, type RowCounts } from './count-rows.js';
import type { EmptyQueue } from './empty-queue.js';
import { Ledger } from './ledger.js';
import { ABANDONED, writeAbandonedManifest, writeManifest } from './manifest.js';
import type { Moment, Phase, RoundPlan } from './plan.js';
import { Program, type ProgramEnd } from './program.js';
import { type RoundQueue, createRoundQueue } from './queue.js';
import { Receipts } from './receipts.js';
import { SimulatorProcess } from './simulator-process.js';

export interface RoundResult {
  readonly plan: RoundPlan;
  readonly rows: RowCounts;
  readonly payments: PaymentCounts;
  readonly receipts: Receipts;
  /** Processes that were killed with SIGKILL: runs, simulators, queues. */
  readonly kills: number;
  /** What is not as promised, one line each; empty for a good round. */
  readonly broken: readonly string[];
  /** The round's folder, kept when something is broken. */
  readonly folder: string;
  readonly seconds: number;
}

const SETTINGS_WITHOUT_FAULTS = { latencyMs: 20, latencySpread: 0.3, rateLimit: null } as const;
/** Without faults one process should do; the second takes up again what has failed before. */
const MOST_TRIES = 5;
const TRY_DEADLINE_MS = 180_000;
/** A process that nobody ends is killed after so long, as one that is to end by itself. */
const PHASE_DEADLINE_MS = 45_000;
const MOMENT_DEADLINE_MS = 5000;
const WIRE_MS = 200;

export interface RoundTools {
  /** Path of the built command line. */
  readonly cli: string;
  readonly emptyQueue: EmptyQueue;
}

/** Runs one round to its end and counts. */
export async function runRound(plan: RoundPlan, { cli, emptyQueue }: RoundTools): Promise<RoundResult> {
  const folder = mkdtempSync(join(tmpdir(), 'bulk-describe-chaos-'));
  const forget = onAbandon(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'plan.json'), JSON.stringify(plan, undefined, 1));
  const startedAt = performance.now();
  const undo = new UndoStack();
  try {
    const queue = await createRoundQueue(plan, folder, emptyQueue);
    undo.defer(() => queue.remove());
    const simulator = new SimulatorProcess(cli, folder, plan);
    undo.defer(() => simulator.kill());
    await simulator.start();
    const round = new Round(plan, { cli, folder, queue, simulator });
    await round.disturb();
    await round.finish();
    const seconds = (performance.now() - startedAt) / 1000;
    const result = { plan, ...round.count(), folder, seconds };
    await undo.release();
    if (result.broken.length === 0) rmSync(folder, { recursive: true, force: true });
    return result;
  } catch (error) {
    throw new Error(`the round in ${folder} could not be ended and counted`, { cause: error });
  } finally {
    await undo.release();
    forget();
  }
}

interface RoundParts {
  readonly cli: string;
  readonly folder: string;
  readonly queue: RoundQueue;
  readonly simulator: SimulatorProcess;
}

class Round {
  readonly #receipts = new Receipts();
  readonly #ledger = new Ledger();
  readonly #broken: string[] = [];
  readonly #args: readonly string[];
  readonly #clock: Clock;
  #abandonedPaid = 0;
  #kills = 0;
  #runs = 0;

  constructor(
    private readonly plan: RoundPlan,
    private readonly parts: RoundParts,
  ) {
    this.#clock = new Clock(join(parts.folder, 'clock'));
    const manifest = writeManifest(parts.folder, plan);
    const limits = ['--rate', '40/s', '--poll-rate', '200/s', '--max-in-flight', '8'];
    const policy = ['--attempts', String(plan.attempts), '--stop-failing', '100'];
    const key = plan.keyed ? ['--key-column', 'key'] : [];
    const where = ['-o', 'out.csv', '--api', parts.simulator.url, '--queue', parts.queue.url];
    this.#args = [
      'run',
      manifest,
      ...where,
      ...limits,
      ...policy,
      ...key,
      '--json',
      '--quiet',
      '--no-progress',
    ];
  }

  /** The phases in which things go wrong. */
  async disturb(): Promise<void> {
    await this.#abandonRun();
    for (const [index, phase] of this.plan.phases.entries()) {
      this.#loseRunFile(index);
      await this.#disturbOnce(phase, index);
    }
    this.#loseRunFile(this.plan.phases.length);
  }

  /** Everything works again: the same command until nothing is left to do. */
  async finish(): Promise<void> {
    const { simulator } = this.parts;
    await simulator.set({ ...SETTINGS_WITHOUT_FAULTS, failures: { reject: this.plan.rejectShare } });
    for (let tries = 1; tries <= MOST_TRIES; tries++) {
      const { name, program } = this.#start();
      const end = await this.#endWithin(program, TRY_DEADLINE_MS);
      if (end === undefined) this.#broken.push(`${name} did not end within ${TRY_DEADLINE_MS / 1000} s`);
      await this.#settle(name, program, [0, 2]);
      if (this.#receipts.last?.remaining === 0 && this.#countRows().lost.length === 0) return;
    }
    this.#broken.push(`not done after ${MOST_TRIES} tries without faults`);
  }

  count(): Pick<RoundResult, 'rows' | 'payments' | 'receipts' | 'kills' | 'broken'> {
    const rows = this.#countRows();
    const own = this.parts.simulator.paid().filter(({ url }) => !url.startsWith(ABANDONED));
    const payments = countPayments(own, this.#ledger);
    const receipts = this.#receipts;
    const broken = [...this.#broken];
    const note = (what: string, names: readonly string[]) => {
      if (names.length > 0) broken.push(`${what}: ${names.join(', ')}`);
    };
    note('lost rows', rows.lost);
    note('rows twice', rows.twice);
    note('rows with what is not theirs', rows.wrong);
    note('paid twice and not counted', payments.uncounted);
    note('unbalanced receipts', receipts.unbalanced);
    const abandonedPaid = this.#countAbandoned();
    if (abandonedPaid > this.#abandonedPaid) {
      broken.push(`${abandonedPaid - this.#abandonedPaid} image(s) were paid for a run that nobody resumed`);
    }
    // What a run whose file was lost has counted, the next one counts again in jobs of its own: the jobs' sum may be higher.
    if (receipts.missing === 0 && receipts.maybePaidTwice < payments.paidTwice) {
      broken.push(
        `the receipts count ${receipts.maybePaidTwice} as paid twice, which ${payments.paidTwice} were`,
      );
    }
    return { rows, payments, receipts, kills: this.#kills, broken };
  }

  /** Kills a run of another manifest on the same account, which nobody resumes. */
  async #abandonRun(): Promise<void> {
    const { cli, folder, simulator } = this.parts;
    const { rows, at } = this.plan.abandoned;
    const manifest = writeAbandonedManifest(folder, rows);
    const args = this.#args.map((arg) => (arg === 'out.csv' ? 'abandoned.out.csv' : arg));
    args[1] = manifest;
    const keyed = args.indexOf('--key-column');
    if (keyed !== -1) args.splice(keyed, 2);
    await simulator.set(SETTINGS_WITHOUT_FAULTS);
    const name = 'abandoned';
    const program = Program.start(cli, args, { folder, name, env: this.#clock.env });
    await this.#until(at, program);
    this.#end(program, 'SIGKILL');
    await program.ended;
    this.#abandonedPaid = await this.#countWhenStill();
  }

  /** What a process that was killed had on the wire is accepted a little later. */
  async #countWhenStill(): Promise<number> {
    let before = -1;
    let count = this.#countAbandoned();
    while (count !== before) {
      await delay(WIRE_MS);
      before = count;
      count = this.#countAbandoned();
    }
    return count;
  }

  #countAbandoned(): number {
    return this.parts.simulator.paid().filter(({ url }) => url.startsWith(ABANDONED)).length;
  }

  #loseRunFile(phase: number): void {
    if (this.plan.runFileLostBefore === phase)
      rmSync(join(this.parts.folder, 'out.csv.run'), { force: true });
  }

  async #disturbOnce(phase: Phase, index: number): Promise<void> {
    const { simulator } = this.parts;
    const { clockJump } = this.plan;
    const { failures, latencyMs, rateLimit, outage, end, at } = phase;
    await simulator.set({ failures, latencyMs, latencySpread: 0.5, rateLimit });
    const { name, program } = this.#start();
    if (clockJump.phase === index) {
      await this.#until(clockJump.at, program);
      this.#clock.jump(clockJump.seconds);
    }
    if (outage !== undefined) {
      await this.#until(outage.at, program);
      if (!program.isOver) await this.#bringDown(outage, () => this.#end(program, end));
    }
    if (end !== 'by itself') {
      await this.#until(at, program);
      this.#end(program, end);
    }
    await this.#endWithin(program, PHASE_DEADLINE_MS);
    // A Redis that is away when a process starts ends it: that is its contract.
    const codes = outage?.of === 'redis' ? [0, 2, 130, 1] : [0, 2, 130];
    // So does an API of whose first five answers none can be read.
    const { badJson = 0, html = 0 } = failures;
    await this.#settle(name, program, badJson + html > 0 ? [...codes, 3] : codes);
  }

  async #bringDown(
    { of, downMs, endWhileDown }: NonNullable<Phase['outage']>,
    endProgram: () => void,
  ): Promise<void> {
    const { simulator, queue } = this.parts;
    this.#kills++;
    await (of === 'simulator' ? simulator.kill() : queue.kill());
    await delay(downMs);
    if (endWhileDown) endProgram();
    await (of === 'simulator' ? simulator.start() : queue.restart());
  }

  #end(program: Program, end: Phase['end']): void {
    if (program.isOver || end === 'by itself') return;
    if (end === 'SIGKILL') this.#kills++;
    program.signal(end === 'SIGINT twice' ? 'SIGINT' : end);
    if (end === 'SIGINT twice') setTimeout(() => program.signal('SIGINT'), 1100);
  }

  #start(): { name: string; program: Program } {
    const { cli, folder } = this.parts;
    const name = `run-${++this.#runs}`;
    return { name, program: Program.start(cli, this.#args, { folder, name, env: this.#clock.env }) };
  }

  /** Waits until it ends; kills it after the deadline. @returns undefined when it had to be killed */
  async #endWithin(program: Program, deadlineMs: number): Promise<ProgramEnd | undefined> {
    const deadline = new AbortController();
    const late = delay(deadlineMs, undefined, { signal: deadline.signal }).catch(() => undefined);
    const end = await Promise.race([program.ended, late]);
    deadline.abort();
    if (end === undefined) this.#end(program, 'SIGKILL');
    return end;
  }

  /** Takes note of what a process that has ended leaves behind. */
  async #settle(name: string, program: Program, codes: readonly number[]): Promise<void> {
    const { queue, simulator } = this.parts;
    const end = await program.ended;
    this.#receipts.note(name, end);
    if (end.code !== null && !codes.includes(end.code)) {
      this.#broken.push(`${name} ended with exit code ${end.code}`);
    }
    // Such a run leaves nothing unsubmitted in the queue, which could say what was lost.
    if (end.code === 3) this.#ledger.unnamed += this.#receipts.last?.maybePaidTwice ?? 0;
    // What a receipt without counts leaves in the queue, the next look finds there as well.
    if (this.#receipts.last?.maybePaidTwice === 0) return;
    // No receipt is to count what was lost with the run that nobody resumes.
    const jobs = await queue.jobs(simulator.url);
    this.#ledger.note(jobs.filter(({ url }) => !url.startsWith(ABANDONED)));
  }

  async #until({ paid, thenMs }: Moment, program: Program): Promise<void> {
    const { simulator } = this.parts;
    const wanted = simulator.paid().length + paid;
    const giveUpAt = performance.now() + MOMENT_DEADLINE_MS;
    while (!program.isOver && simulator.paid().length < wanted && performance.now() < giveUpAt)
      await delay(5);
    await delay(thenMs);
  }

  #countRows(): RowCounts {
    const { folder, simulator } = this.parts;
    const accepted = new Set(simulator.paid().map(({ url }) => url));
    const files = { output: join(folder, 'out.csv'), failures: join(folder, 'out.failed.csv') };
    return countRows(this.plan.rows, files, (url) => accepted.has(url));
  }
}
