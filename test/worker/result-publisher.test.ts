import { beforeAll, expect, test } from 'vitest';
import { resultsQueueName } from '../../src/shared/account.js';
import { type PublishedResults, type ResultJobData, outcomesIn } from '../../src/shared/jobs.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { createResultPublisher } from '../../src/worker/processing.js';
import { describeOnBothQueues } from '../helpers/queues.js';

function resultOf(image: string): ResultJobData {
  const outcome = { status: 'failed', code: 'http', reason: 'no', attempts: 1 } as const;
  return { image, outcome, submits: 1, polls: 0, maybePaid: 0 };
}

describeOnBothQueues('publishing results', (openQueue) => {
  let connection: QueueConnection;
  beforeAll(async () => {
    connection = await (await openQueue()).connect();
  });

  test('those that come together share a job of 50 at most, and each run has its own', async () => {
    const publisher = createResultPublisher(connection);
    const images = Array.from({ length: 120 }, (_, image) => String(image));
    const others = ['a', 'b'].map((image) => publisher.commit({ run: 'second', result: resultOf(image) }));
    await Promise.all([
      ...images.map((image) => publisher.commit({ run: 'first', result: resultOf(image) })),
      ...others,
    ]);
    const groups = async (run: string) => {
      const jobs = await connection.queue<PublishedResults, null>(resultsQueueName(run)).getWaiting();
      return jobs.map(({ data }) => outcomesIn(data).map(({ image }) => image));
    };
    expect((await groups('first')).map(({ length }) => length).sort()).toEqual([22, 48, 50]);
    expect((await groups('first')).flat().sort()).toEqual([...images].sort());
    expect(await groups('second')).toEqual([['a', 'b']]);
  });

  test('those whose job could not be stored are rejected, and the next ones are stored all the same', async () => {
    let isBroken = true;
    const publisher = createResultPublisher({
      passingQueue: (name) => {
        if (isBroken) throw new Error('no');
        return connection.passingQueue(name);
      },
      outage: connection.outage,
    });
    await expect(publisher.commit({ run: 'broken', result: resultOf('a') })).rejects.toThrow('no');
    isBroken = false;
    await publisher.commit({ run: 'broken', result: resultOf('b') });
  });
});
