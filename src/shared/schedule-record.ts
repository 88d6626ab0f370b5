import { z } from 'zod';
import type { SharedStore } from './queue/store.js';

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

/** How one turn ended. */
export interface TurnEnd {
  /** Epoch milliseconds. */
  readonly at: number;
  readonly exitCode: number;
  readonly text: string;
  /** Every row is described or accepted. */
  readonly isSuccess: boolean;
}

/** Keeps how a turn ended; where it was no success, the time of the last one stays. */
export async function keepTurnEnd(store: SharedStore, name: string, end: TurnEnd): Promise<void> {
  const lastAt = String(end.at);
  await store.setFields(recordName(name), {
    lastAt,
    lastExit: String(end.exitCode),
    lastText: end.text,
    ...(end.isSuccess && { lastSuccessAt: lastAt }),
  });
}

export async function forgetSchedule(store: SharedStore, name: string): Promise<void> {
  const nothing = { lastAt: null, lastExit: null, lastText: null, lastSuccessAt: null };
  await store.setFields(recordName(name), nothing);
}

function recordName(name: string): string {
  return `schedule:${name}`;
}
