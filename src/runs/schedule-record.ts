import { z } from 'zod';
import type { SharedStore } from '../shared/queue/store.js';
import type { RunOutcome } from './run-outcome.js';

/** How a schedule's runs have ended; kept beside its job scheduler, under `schedule:<name>`. */
export interface ScheduleRecord {
  /** When its last turn ended or was skipped, epoch milliseconds. */
  readonly lastAt?: number | undefined;
  readonly lastExit?: number | undefined;
  /** One line for people. */
  readonly lastText?: string | undefined;
  /** When it last ended with every row described or accepted, epoch milliseconds. */
  readonly lastSuccessAt?: number | undefined;
}

const recordSchema = z.object({
  lastAt: z.coerce.number().optional(),
  lastExit: z.coerce.number().optional(),
  lastText: z.string().optional(),
  lastSuccessAt: z.coerce.number().optional(),
});

/** What is known of a schedule's runs; nothing before the first has ended. */
export async function readScheduleRecord(store: SharedStore, name: string): Promise<ScheduleRecord> {
  return recordSchema.safeParse(await store.getFields(recordName(name))).data ?? {};
}

/** Keeps how a schedule's turn ended. To be called at every end, also where it was skipped or refused. */
export async function noteScheduleOutcome(
  store: SharedStore,
  name: string,
  outcome: RunOutcome,
  nowMs: number,
): Promise<void> {
  const isSuccess = outcome.outcome === 'ended' && outcome.exitCode === 0;
  await store.setFields(recordName(name), {
    lastAt: String(nowMs),
    lastExit: String(outcome.exitCode),
    lastText: outcomeText(outcome),
    ...(isSuccess && { lastSuccessAt: String(nowMs) }),
  });
}

export async function forgetSchedule(store: SharedStore, name: string): Promise<void> {
  await store.setFields(recordName(name), {
    lastAt: null,
    lastExit: null,
    lastText: null,
    lastSuccessAt: null,
  });
}

/** An outcome on one line: `12 described, 3 failed`, `skipped: ...`. */
export function outcomeText({ outcome, reason, receipt }: RunOutcome): string {
  const why = reason === undefined || reason === '' ? '' : `: ${reason}`;
  if (outcome !== 'ended' || receipt === undefined) return `${outcome}${why}`;
  const { described, resumed, copied, failed, remaining } = receipt;
  const counts = Object.entries({ described, resumed, copied, failed, remaining })
    .filter(([name, count]) => count > 0 || name === 'described')
    .map(([name, count]) => `${count} ${name}`);
  return `${counts.join(', ')}${why}`;
}

function recordName(name: string): string {
  return `schedule:${name}`;
}
