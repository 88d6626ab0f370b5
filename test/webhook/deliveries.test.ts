import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DeliveryInbox, putDelivery } from '../../src/webhook/deliveries.js';
import type { DeliveryWatch } from '../../src/webhook/deliveries.js';
import { createLogger } from '../../src/shared/log.js';
import { type QueueConnection, openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';

const logger = createLogger('silent');
const hasCome = (watch: DeliveryWatch) => watch.came.aborted;

describeOnBothQueues('deliveries', (open, kind) => {
  /** As a worker and a receiver in two processes have them, which the embedded queue cannot have. */
  const openBoth = async () => {
    const fixture = await open();
    const worker = await fixture.connect();
    const receiver = kind === 'redis' ? await fixture.connect() : worker;
    return { worker, receiver, inbox: await DeliveryInbox.open(worker.store, 'queue', logger) };
  };

  test('ring the watch of their ref, tell its message, and ring no other', async () => {
    const { receiver, inbox } = await openBoth();
    const watch = inbox.watch('ref-1');
    const other = inbox.watch('ref-2');
    await putDelivery(receiver.store, 'another-queue', { ref: 'ref-2', messageId: 'm' });
    await putDelivery(receiver.store, 'queue', { ref: 'ref-1', messageId: 'a message' });
    await waitUntil('the watch rings', () => hasCome(watch));
    expect(watch.messageId).toBe('a message');
    expect(hasCome(other)).toBe(false);
    expect([watch.take(), watch.take()]).toEqual([true, false]);
    await inbox.close();
  });

  test('without a ref ring whoever waits for their message, until that ends', async () => {
    const { receiver, inbox } = await openBoth();
    const watch = inbox.watch('ref');
    watch.alsoFor('message with spaces');
    await putDelivery(receiver.store, 'queue', { ref: undefined, messageId: 'message with spaces' });
    await waitUntil('the watch rings', () => watch.take());
    await putDelivery(receiver.store, 'queue', { ref: 'ref', messageId: 'by its ref' });
    await waitUntil('the watch rings', () => watch.take() && watch.messageId === 'by its ref');
    watch.end();
    const other = inbox.watch('other');
    await putDelivery(receiver.store, 'queue', { ref: undefined, messageId: 'message with spaces' });
    await putDelivery(receiver.store, 'queue', { ref: 'ref', messageId: 'by its ref' });
    await putDelivery(receiver.store, 'queue', { ref: 'other', messageId: 'm' });
    await waitUntil('the other one rings', () => hasCome(other));
    expect(hasCome(watch)).toBe(false);
    await inbox.close();
  });

  test('that came before anybody watched are found, one for each ref: the newest', async () => {
    const { receiver, inbox } = await openBoth();
    await putDelivery(receiver.store, 'queue', { ref: 'early', messageId: 'first' });
    await putDelivery(receiver.store, 'queue', { ref: 'early', messageId: 'second' });
    await putDelivery(receiver.store, 'queue', { ref: 'nameless', messageId: undefined });
    const watches = ['early', 'none', 'nameless'].map((ref) => inbox.watch(ref));
    await inbox.lookUp(['early', 'none', 'nameless']);
    expect(watches.map((watch) => [watch.take(), watch.messageId])).toEqual([
      [true, 'second'],
      [false, undefined],
      [true, undefined],
    ]);
    await inbox.close();
  });

  test('are kept for a while, and no more than so many of them: the oldest go first', async () => {
    const { receiver } = await openBoth();
    const mailbox = 'deliveries:queue';
    const names = Array.from({ length: 30 }, (_, i) => `r${i}`);
    for (const name of names) await receiver.store.putMessage(mailbox, name, 'm', { ttlMs: 60_000, max: 10 });
    expect([...(await receiver.store.messages(mailbox, names)).keys()]).toEqual(names.slice(-10));
    await receiver.store.putMessage(mailbox, 'short', 'm', { ttlMs: 50, max: 10 });
    const has = async () => (await receiver.store.messages(mailbox, ['short'])).size > 0;
    await waitUntil('its time is over', async () => !(await has()));
  });
});

describe.skipIf(!redisAvailable)('deliveries while Redis crashes', () => {
  let redis: TestRedis;
  const connections: QueueConnection[] = [];
  const connect = async () => {
    const connection = await openQueue(parseQueueUrl(redis.url, {}));
    connections.push(connection);
    return connection;
  };
  beforeAll(async () => {
    redis = await startRedis('--appendfsync', 'always');
  });
  afterAll(async () => {
    for (const connection of connections) await connection.close();
    await redis.stop();
  });

  test('are heard by two workers before and after, and those that came unheard are looked up', async () => {
    const [receiver, one, two] = [await connect(), await connect(), await connect()];
    const inboxes = [
      await DeliveryInbox.open(one.store, 'queue', logger),
      await DeliveryInbox.open(two.store, 'queue', logger),
    ];
    // Each time other refs, as it is: one message is delivered for one of them.
    const watch = (stage: string) => inboxes.map((inbox, i) => inbox.watch(`${stage}-${i}`));
    const put = (stage: string) =>
      Promise.all(
        inboxes.map((_, i) =>
          putDelivery(receiver.store, 'queue', { ref: `${stage}-${i}`, messageId: stage }),
        ),
      );
    const allRing = (watches: DeliveryWatch[], stage: string) =>
      waitUntil(`both ring: ${stage}`, () => watches.every((w) => hasCome(w) && w.messageId === stage));
    const before = watch('before');
    await put('before');
    await allRing(before, 'before');

    const meanwhile = watch('meanwhile');
    await redis.kill9();
    // The receiver waits for Redis, and may be back before the workers listen again.
    const stored = put('meanwhile');
    await redis.restart();
    await stored;
    await allRing(meanwhile, 'meanwhile');

    const after = watch('after');
    await put('after');
    await allRing(after, 'after');
    for (const inbox of inboxes) await inbox.close();
  }, 60_000);
});
