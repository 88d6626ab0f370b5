import { RUNS_QUEUE } from '../../shared/jobs.js';
import type { QueueConnection } from '../../shared/queue/connection.js';

export interface ScheduleFigures {
  readonly name: string;
  /** Epoch milliseconds; undefined when it never was. */
  readonly lastSuccessAt: number | undefined;
}

/** The schedules of a queue. Each has a record beside its job scheduler, which tells when it last succeeded. */
export async function readSchedules(connection: QueueConnection): Promise<ScheduleFigures[]> {
  const schedulers = await connection.queue(RUNS_QUEUE).getJobSchedulers();
  return Promise.all(
    schedulers.map(async ({ key }) => {
      const { lastSuccessAt } = await connection.store.getFields(`schedule:${key}`);
      return { name: key, lastSuccessAt: parseTime(lastSuccessAt) };
    }),
  );
}

/** Epoch milliseconds, or ISO 8601. */
function parseTime(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const time = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}
