import { describe, expect, it } from 'vitest';
import { type ResultJobData, handOverTogether, outcomesIn } from '../../src/shared/jobs.js';
import { HandOver } from '../../src/worker/hand-over.js';

function resultOf(image: string): ResultJobData {
  const outcome = { status: 'failed', code: 'http', reason: 'no', attempts: 1 } as const;
  return { image, outcome, submits: 1, polls: 0, maybePaid: 0 };
}

/** A hand-over whose queue answers when it is told to. */
function slowHandOver() {
  const added: { run: string; images: string[]; answer: (error?: Error) => void }[] = [];
  const handOver = new HandOver(
    (run, results) =>
      new Promise<void>((resolve, reject) => {
        const answer = (error?: Error) => (error === undefined ? resolve() : reject(error));
        added.push({ run, images: results.map(({ image }) => image), answer });
      }),
  );
  return { handOver, added, turn: () => new Promise((resolve) => setImmediate(resolve)) };
}

describe('handing outcomes over', () => {
  it('gives the first at once, and those that come meanwhile together', async () => {
    const { handOver, added, turn } = slowHandOver();
    const first = handOver.give('run', resultOf('a'));
    await turn();
    const others = ['b', 'c', 'd'].map((image) => handOver.give('run', resultOf(image)));
    await turn();
    expect(added.map(({ images }) => images)).toEqual([['a']]);
    added[0]?.answer();
    await first;
    await turn();
    expect(added.map(({ images }) => images)).toEqual([['a'], ['b', 'c', 'd']]);
    added[1]?.answer();
    await Promise.all(others);
  });

  it('keeps runs apart, none of which waits for another', async () => {
    const { handOver, added, turn } = slowHandOver();
    void handOver.give('one', resultOf('a'));
    void handOver.give('two', resultOf('b'));
    await turn();
    expect(added.map(({ run, images }) => [run, ...images])).toEqual([
      ['one', 'a'],
      ['two', 'b'],
    ]);
  });

  it('tells those of a group that it could not be stored, and takes the next ones all the same', async () => {
    const { handOver, added, turn } = slowHandOver();
    const lost = handOver.give('run', resultOf('a'));
    await turn();
    added[0]?.answer(new Error('no'));
    await expect(lost).rejects.toThrow('no');
    const next = handOver.give('run', resultOf('b'));
    await turn();
    added[1]?.answer();
    await next;
  });

  it('puts no more than 50 into one job', async () => {
    const { handOver, added, turn } = slowHandOver();
    for (let image = 0; image < 120; image++) void handOver.give('run', resultOf(String(image)));
    for (const step of [0, 1, 2]) {
      await turn();
      added[step]?.answer();
    }
    expect(added.map(({ images }) => images.length)).toEqual([50, 50, 20]);
  });

  it('makes a job of outcomes that holds them all', () => {
    for (const images of [['a'], ['a', 'b', 'c']]) {
      const results = images.map(resultOf);
      expect(outcomesIn(handOverTogether(results))).toEqual(results);
    }
  });
});
