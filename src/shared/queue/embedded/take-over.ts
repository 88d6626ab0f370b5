import { MAX_STALLED_COUNT } from '../job-machinery.js';
import type { SessionPool } from './session-pool.js';

/**
 * Puts the jobs that were active when the earlier process died back to waiting, at the head of their queues.
 *
 * One process at a time has the database, so at its opening every active job's worker is dead, however long
 * its lock would last. BullMQ's own recovery (`move_stalled_jobs_to_wait`) would find these jobs 10 to 15 s
 * later and put them behind the backlog. This does to a job what that function does, in a statement on
 * the columns of migration 0001: the state, the lock, the mark, the count, and the failure when a job
 * has stalled too often (a scheduler's job never fails for that). A negative `seq` is BullMQ's way to say
 * "at the head". No worker runs yet, so nobody has to be notified. Jobs whose data holds a `messageId` are paid
 * for: they come last here, so that they are the first to be activated.
 *
 * @returns how many there were
 */
export async function takeOverActiveJobs(pool: SessionPool): Promise<number> {
  const unpaid = await takeOver(pool, false);
  const paid = await takeOver(pool, true);
  return unpaid + paid;
}

async function takeOver(pool: SessionPool, hasMessage: boolean): Promise<number> {
  const { rows } = await pool.query<{ id: string }>(
    `UPDATE job
        SET state = 'waiting',
            seq = -nextval('job_seq'),
            lock_token = NULL,
            locked_until_ms = NULL,
            stalled_marked = false,
            stalled_count = stalled_count + 1,
            deferred_failure = CASE
              WHEN stalled_count + 1 > $1::integer AND scheduler_id IS NULL
                THEN 'job stalled more than allowable limit'
              ELSE deferred_failure
            END
      WHERE state = 'active' AND (data ? 'messageId') = $2::boolean
      RETURNING id`,
    [MAX_STALLED_COUNT, hasMessage],
  );
  return rows.length;
}
