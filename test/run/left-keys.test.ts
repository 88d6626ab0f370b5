import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { manifestOf } from '../helpers/workspace.js';

describeOnRedis('what runs leave in the queue', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('does not grow with them, but for the images that people can look at for a week', async () => {
    const client = new Redis(fixture.queue.url);
    const keys = async () => {
      const all = (await client.keys('*')).filter(
        (key) => !/:describe@[^:]*(:[a-z0-9]{12}\.|:completed$)/.test(key),
      );
      const left = await Promise.all(all.map((key) => client.pttl(key)));
      // What lasts a minute at most is on its way out, and may have gone since it was listed (-2); -1 stays for good.
      return all.filter((_, index) => left[index] === -1 || (left[index] ?? 0) >= 60_000).sort();
    };
    const run = async (number: number) => {
      const manifest = await fixture.workspace.write(
        `m${number}.csv`,
        manifestOf(1, `http://h${number}.test`),
      );
      const { receipt } = await fixture.run({ manifest, output: fixture.workspace.at(`out${number}.csv`) });
      expect(receipt).toMatchObject({ described: 1 });
    };
    try {
      for (let number = 0; number < 2; number++) await run(number);
      const few = await keys();
      for (let number = 2; number < 12; number++) await run(number);
      expect(await keys()).toEqual(few);
      expect(few.filter((key) => key.includes('results@'))).toEqual([]);
    } finally {
      client.disconnect();
    }
  });
});
