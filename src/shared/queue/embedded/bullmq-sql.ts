import { DEFAULT_SCHEMA, type PgQueryable } from 'bullmq';
import { MAX_STALLED_COUNT } from '../connection.js';

/*
 * All that depends on the tables and statements of BullMQ's PostgreSQL backend. `test/queue/bullmq-sql.test.ts` fails
 * where another version of BullMQ has others.
 */

/**
 * BullMQ's question whether a queue has waiting jobs, asked whenever a worker is about to wait for one. While
 * the queue may have no more active jobs than it has, the answer makes the worker ask again at once, for ever,
 * which keeps a processor busy. So it is answered this often at most; new jobs are announced anyhow.
 */
export const HAS_WAITING_JOBS = /state = 'waiting'\s*\)\s*AND NOT EXISTS/;
export const HAS_WAITING_JOBS_EVERY_MS = 100;

/** The moments that BullMQ stores; each lies a length of time after the moment in which it was stored. */
const MOVE_MOMENTS = [
  'UPDATE rate_limit SET expire_at_ms = expire_at_ms + $1::bigint',
  'UPDATE job SET process_at_ms = process_at_ms + $1::bigint WHERE process_at_ms IS NOT NULL',
  'UPDATE job SET locked_until_ms = locked_until_ms + $1::bigint WHERE locked_until_ms IS NOT NULL',
  "UPDATE meta SET value = (value::bigint + $1::bigint)::text WHERE field = 'stalled-check'",
];
/** A worker that waits may have asked before the jump until when. */
const WAKE_WORKERS =
  "SELECT pg_notify('bullmq_jobs', queue) FROM (SELECT DISTINCT queue FROM job WHERE state IN ('waiting', 'delayed')) AS queues";

/** After a jump of the clock each length is what it was: else the queue would stand still for as long as it went back. */
export async function moveMoments(database: PgQueryable, jumpMs: number): Promise<void> {
  for (const statement of MOVE_MOMENTS) await database.query(statement, [jumpMs]);
  await database.query(WAKE_WORKERS);
}

/** Makes a database that was just opened ready for BullMQ. @returns how many jobs of a dead process it has taken over */
export async function prepareTables(database: PgQueryable): Promise<number> {
  // BullMQ's statements name no schema.
  await database.query(`SET search_path TO "${DEFAULT_SCHEMA}"`);
  // They are short, and may lie far ahead where the clock went back meanwhile.
  await database.query('DELETE FROM rate_limit');
  await database.query("DELETE FROM meta WHERE field = 'stalled-check'");
  return (await takeOverActiveJobs(database, false)) + (await takeOverActiveJobs(database, true));
}

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
 */
async function takeOverActiveJobs(database: PgQueryable, hasMessage: boolean): Promise<number> {
  const { rows } = await database.query<{ id: string }>(
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

/** Removes what is left of a queue that has no job. */
export async function forgetQueue(database: PgQueryable, queueName: string): Promise<void> {
  for (const table of ['meta', 'event']) {
    const isEmpty = 'NOT EXISTS (SELECT FROM job WHERE queue = $1)';
    await database.query(`DELETE FROM ${table} WHERE queue = $1 AND ${isEmpty}`, [queueName]);
  }
}
