// A process that has an embedded queue, for tests that kill it. Reads one command a line, answers each with a line.
import process from 'node:process';
import { createInterface } from 'node:readline';
import { openQueue } from '../../dist/shared/queue/connection.js';
import { parseQueueUrl } from '../../dist/shared/queue/queue-url.js';

const [url = '', queueName = ''] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${line}\n`);

const commands = {
  /** Adds jobs for ever, and says each one's id once the queue has it. */
  async flood(queue) {
    for (let n = 0; ; n++) say((await queue.add('x', { n })).id);
  },
  /** Starts a worker that never ends a job. */
  async hang(queue, connection) {
    const hang = () => new Promise(() => undefined);
    connection.worker(queue.name, hang, { concurrency: 3 }).on('active', (job) => say(`active ${job.id}`));
  },
  async close(_queue, connection) {
    await connection.close();
    say('closed');
    process.stdin.destroy();
  },
};

try {
  const connection = await openQueue(parseQueueUrl(url, process.env));
  say('open');
  createInterface({ input: process.stdin }).on('line', (line) => {
    void commands[line](connection.queue(queueName), connection);
  });
} catch (error) {
  say(`${error.name}: ${error.message}`);
}
