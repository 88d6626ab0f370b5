import { RUNS_QUEUE } from '../../shared/jobs.js';
import type { QueueConnection } from '../../shared/queue/connection.js';
import { readScheduleRecord } from '../../shared/published.js';

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
      const { lastSuccessAt } = await readScheduleRecord(connection.store, key);
      return { name: key, lastSuccessAt };
    }),
  );
}
