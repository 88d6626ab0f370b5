import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { manifestOf } from '../helpers/workspace.js';
import { LIMITS, ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

// eslint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;
const OUTPUT = 'a\u001b[31mb\u009b.csv';

describeOnRedis('control characters in names', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  test('do not reach the terminal from whatever shows the names', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    const server = await fixture.serve('--work');
    const enqueued = await fixture.command('enqueue', 'm.csv', '-o', OUTPUT);
    expect(enqueued.code, enqueued.stderr).toBe(0);
    await untilSaid(server, /has ended with exit code 0/);
    expect(server.stderr()).toContain('a [31mb .csv');
    const ends = [
      enqueued,
      await fixture.command('enqueue', `none${OUTPUT}`, '-o', OUTPUT),
      await fixture.command('cancel', OUTPUT),
      await fixture.command('retry', `none${OUTPUT}`),
      await fixture.command('status', OUTPUT),
      await fixture.service.start('run', ['m.csv', '-o', `run${OUTPUT}`, ...LIMITS]).ended,
      await fixture.service.start('run', [`none${OUTPUT}`, ...LIMITS]).ended,
    ];
    expect(ends.map(({ stdout, stderr }) => (stdout + stderr).includes('[31mb'))).toEqual(
      ends.map(() => true),
    );
    for (const said of [server.stderr(), ...ends.map(({ stdout, stderr }) => stdout + stderr)]) {
      expect(said).not.toMatch(CONTROL);
    }
  });
});
