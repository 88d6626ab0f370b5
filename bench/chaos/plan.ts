import type { Rate } from '../../src/shared/limits.js';
import type { FailureShares } from '../../src/simulator/options.js';
import { Draw } from './draw.js';
import { type PlannedRow, planRows } from './plan-rows.js';

export type QueueKind = 'redis' | 'embedded';

/** A moment in the life of a process. */
export interface Moment {
  /** After so many more submits were paid; 0 for its start. */
  readonly paid: number;
  readonly thenMs: number;
}

/** What happens to a server while a process runs. */
export interface Outage {
  readonly of: 'simulator' | 'redis';
  readonly at: Moment;
  readonly downMs: number;
  /** The process is told to end, or killed, before the server is back. */
  readonly endWhileDown: boolean;
}

export type End = 'SIGKILL' | 'SIGTERM' | 'SIGINT' | 'SIGINT twice' | 'by itself';

/** One process of a round, and what goes wrong meanwhile. */
export interface Phase {
  readonly failures: FailureShares;
  readonly latencyMs: number;
  readonly rateLimit: Rate | null;
  readonly outage: Outage | undefined;
  readonly end: End;
  readonly at: Moment;
}

/** A run of another manifest on the same account, killed at this moment and never resumed. */
export interface AbandonedRun {
  readonly rows: number;
  readonly at: Moment;
}

/** The machine's clock jumps while the process of this phase runs, and stays there. */
export interface ClockJump {
  readonly phase: number;
  readonly at: Moment;
  readonly seconds: number;
}

export interface RoundPlan {
  readonly seed: number;
  readonly queue: QueueKind;
  readonly rows: readonly PlannedRow[];
  readonly keyed: boolean;
  readonly gzip: boolean;
  /** The embedded queue is created by the first process, which may be killed meanwhile. */
  readonly newQueue: boolean;
  readonly attempts: number;
  /** Images that the API refuses, always the same ones. */
  readonly rejectShare: number;
  readonly phases: readonly Phase[];
  readonly abandoned: AbandonedRun;
  /** The run file is removed before the process of this phase; the one after the last is the first without faults. */
  readonly runFileLostBefore: number;
  readonly clockJump: ClockJump;
}

/** Draws a round. Only what the machine's own timing does to it is not in the seed. */
export function planRound(seed: number, queue: QueueKind): RoundPlan {
  const draw = new Draw(seed);
  const keyed = draw.happens(0.35);
  const rejectShare = draw.happens(0.3) ? draw.share(0.02, 0.15) : 0;
  const rows = planRows(draw, keyed);
  const processes = draw.between(1, 4);
  return {
    seed,
    queue,
    rows,
    keyed,
    gzip: draw.happens(0.3),
    newQueue: draw.happens(0.1),
    attempts: draw.oneOf(2, 3, 5, 5, 5),
    rejectShare,
    phases: Array.from({ length: processes }, () => planPhase(draw, queue, rejectShare, rows.length)),
    abandoned: {
      rows: draw.between(10, 60),
      at: { paid: draw.between(1, 10), thenMs: draw.between(0, 300) },
    },
    runFileLostBefore: draw.between(1, processes),
    clockJump: {
      phase: draw.between(0, processes - 1),
      at: planMoment(draw, rows.length),
      seconds: draw.oneOf(-86_400, -600, -30, 30, 600, 86_400),
    },
  };
}

/** At most a quarter of the rows later, so that something is left for the next process. */
function planMoment(draw: Draw, rows: number): Moment {
  return {
    paid: draw.happens(0.2) ? 0 : draw.between(1, Math.ceil(rows / 4)),
    thenMs: draw.happens(0.2) ? draw.between(0, 1500) : draw.between(0, 150),
  };
}

function planPhase(draw: Draw, queue: QueueKind, rejectShare: number, rows: number): Phase {
  const end = draw.oneOf<End>(
    ...([
      'SIGKILL',
      'SIGKILL',
      'SIGKILL',
      'SIGKILL',
      'SIGTERM',
      'SIGINT',
      'SIGINT twice',
      'by itself',
    ] as const),
  );
  const moment = () => planMoment(draw, rows);
  return {
    failures: { ...planFailures(draw, end), reject: rejectShare },
    latencyMs: draw.oneOf(20, 50, 100, 100, 700),
    rateLimit: draw.happens(0.15) ? { count: draw.between(2, 6), perMs: 1000 } : null,
    outage: planOutage(draw, queue, moment),
    end,
    at: moment(),
  };
}

const KINDS = [
  'http500',
  'resetBefore',
  'reset',
  'badJson',
  'html',
  'incomplete',
  'pollError',
  'pollMissing',
] as const;

function planFailures(draw: Draw, end: End): FailureShares {
  const shares = new Map<string, number>();
  const kinds = draw.between(0, 4);
  for (let kind = 0; kind < kinds; kind++) shares.set(draw.oneOf(...KINDS), draw.share(0.03, 0.2));
  // The client waits 30 s for an answer: only where it is not left to that.
  if (end === 'SIGKILL' && draw.happens(0.3)) shares.set('hang', draw.share(0.05, 0.2));
  return Object.fromEntries(shares);
}

function planOutage(draw: Draw, queue: QueueKind, moment: () => Moment): Outage | undefined {
  if (!draw.happens(0.3)) return undefined;
  const of = queue === 'redis' ? draw.oneOf('simulator', 'redis', 'redis') : 'simulator';
  return { of, at: moment(), downMs: draw.between(20, 1500), endWhileDown: draw.happens(0.3) };
}
