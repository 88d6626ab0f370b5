import { describe, expect, test } from 'vitest';
import { freshJobData } from '../../src/shared/jobs.js';
import type { ProcessingOutcome } from '../../src/worker/processing.js';
import { Processings, SupersededError } from '../../src/worker/job-processor.js';

const data = freshJobData({ run: 'r', url: 'http://h/1.jpg', row: 1, maxAttempts: 5, deadlineMs: 1000 });
const released: ProcessingOutcome = {
  kind: 'release',
  data: { ...data, messageId: 'm1' },
  why: 'the worker stops',
};

/** A part that ends when the test says so. */
function gate<T>() {
  let open: (value: T) => void = () => undefined;
  const opened = new Promise<T>((resolve) => (open = resolve));
  return { open, opened };
}

describe('a job that this process is given a second time', () => {
  test('stops the first processing, waits for what it has on the wire, and goes on from there', async () => {
    const processings = new Processings();
    const settled: string[] = [];
    const onTheWire = gate<ProcessingOutcome>();
    const signals: AbortSignal[] = [];
    const first = processings.run(
      'job',
      (_earlier, superseded) => {
        signals.push(superseded);
        return onTheWire.opened;
      },
      () => Promise.resolve(settled.push('first')),
    );
    const seen: (ProcessingOutcome | undefined)[] = [];
    const second = processings.run(
      'job',
      (earlier) => {
        seen.push(earlier);
        return Promise.resolve(released);
      },
      () => Promise.resolve(settled.push('second')),
    );
    await Promise.resolve();
    expect([signals.map(({ aborted }) => aborted), seen]).toEqual([[true], []]);
    onTheWire.open(released);
    await expect(first).rejects.toThrow(SupersededError);
    await second;
    expect(seen).toEqual([released]);
    expect(settled).toEqual(['second']);
    expect(processings.isRunning('job')).toBe(false);
  });

  test('settles the outcome that the first one came to, and describes nothing again', async () => {
    const processings = new Processings();
    const outcome: ProcessingOutcome = {
      kind: 'fail',
      data,
      result: {
        image: 'i',
        outcome: { status: 'failed', code: 'deadline', reason: 'late', attempts: 1 },
        submits: 1,
        polls: 1,
        maybePaid: 0,
      },
    };
    const polling = gate<ProcessingOutcome>();
    const first = processings.run(
      'job',
      () => polling.opened,
      () => Promise.resolve(),
    );
    const second = processings.run(
      'job',
      (earlier) => (earlier === undefined ? Promise.reject(new Error('anew')) : Promise.resolve(earlier)),
      (ended) => Promise.resolve(ended),
    );
    polling.open(outcome);
    await expect(first).rejects.toThrow(SupersededError);
    expect(await second).toBe(outcome);
  });

  test('begins where the queue has it when the first processing failed, and leaves other jobs alone', async () => {
    const processings = new Processings();
    const failing = gate<ProcessingOutcome>();
    const first = processings.run(
      'job',
      () => failing.opened.then(() => Promise.reject(new Error('broken'))),
      () => Promise.resolve(),
    );
    const other = processings.run(
      'other',
      (earlier) => (earlier === undefined ? Promise.resolve(released) : Promise.reject(new Error())),
      () => Promise.resolve('other'),
    );
    expect(await other).toBe('other');
    const second = processings.run(
      'job',
      (earlier) => (earlier === undefined ? Promise.resolve(released) : Promise.reject(new Error())),
      () => Promise.resolve('second'),
    );
    failing.open(released);
    await expect(first).rejects.toThrow('broken');
    expect(await second).toBe('second');
  });
});
