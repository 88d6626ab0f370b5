import { describe, expect, it } from 'vitest';
import { freshJobData } from '../../src/shared/jobs.js';
import type { ProcessingOutcome } from '../../src/worker/processing.js';
import { Activations, type Inherited, SupersededError } from '../../src/worker/activations.js';

const data = freshJobData({ run: 'r', url: 'http://h/1.jpg', row: 1, maxAttempts: 5, deadlineMs: 1000 });
const handedBack: ProcessingOutcome = { kind: 'release', data: { ...data, messageId: 'm1' } };

/** A part that ends when the test says so. */
function gate<T>() {
  let open: (value: T) => void = () => undefined;
  const opened = new Promise<T>((resolve) => (open = resolve));
  return { open, opened };
}

describe('a job that this process is given a second time', () => {
  it('stops the first activation, waits for what it has on the wire, and goes on from there', async () => {
    const activations = new Activations();
    const settled: string[] = [];
    const onTheWire = gate<ProcessingOutcome>();
    const signals: AbortSignal[] = [];
    const first = activations.run(
      'job',
      (_inherited, superseded) => {
        signals.push(superseded);
        return onTheWire.opened;
      },
      () => Promise.resolve(settled.push('first')),
    );
    const seen: Inherited[] = [];
    const second = activations.run(
      'job',
      (inherited) => {
        seen.push(inherited);
        return Promise.resolve(handedBack);
      },
      () => Promise.resolve(settled.push('second')),
    );
    await Promise.resolve();
    expect([signals.map(({ aborted }) => aborted), seen]).toEqual([[true], []]);
    onTheWire.open(handedBack);
    await expect(first).rejects.toThrow(SupersededError);
    await second;
    expect(seen).toEqual([{ kind: 'data', data: handedBack.data }]);
    expect(settled).toEqual(['second']);
    expect(activations.isRunning('job')).toBe(false);
  });

  it('settles the outcome that the first one came to, and describes nothing again', async () => {
    const activations = new Activations();
    const outcome: ProcessingOutcome = {
      kind: 'outcome',
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
    const first = activations.run(
      'job',
      () => polling.opened,
      () => Promise.resolve(),
    );
    const second = activations.run(
      'job',
      (inherited) =>
        inherited.kind === 'ending' ? Promise.resolve(inherited.ending) : Promise.reject(new Error('anew')),
      (ending) => Promise.resolve(ending),
    );
    polling.open(outcome);
    await expect(first).rejects.toThrow(SupersededError);
    expect(await second).toBe(outcome);
  });

  it('begins where the queue has it when the first activation failed, and leaves other jobs alone', async () => {
    const activations = new Activations();
    const failing = gate<ProcessingOutcome>();
    const first = activations.run(
      'job',
      () => failing.opened.then(() => Promise.reject(new Error('broken'))),
      () => Promise.resolve(),
    );
    const other = activations.run(
      'other',
      (inherited) =>
        inherited.kind === 'nothing' ? Promise.resolve(handedBack) : Promise.reject(new Error()),
      () => Promise.resolve('other'),
    );
    expect(await other).toBe('other');
    const second = activations.run(
      'job',
      (inherited) =>
        inherited.kind === 'nothing' ? Promise.resolve(handedBack) : Promise.reject(new Error()),
      () => Promise.resolve('second'),
    );
    failing.open(handedBack);
    await expect(first).rejects.toThrow('broken');
    expect(await second).toBe('second');
  });
});
