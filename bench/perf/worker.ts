// A process of its own: a worker, as `bulk-describe worker` starts one. It ends when its parent does.
import { setFlagsFromString } from 'node:v8';
import { DescribeClient } from '../../src/describe-api/client.js';
import { accountOf } from '../../src/run/api-options.js';
import { describeQueueName } from '../../src/shared/account.js';
import { AccountLimits } from '../../src/shared/account-limits.js';
import { createLogger } from '../../src/shared/log.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { DescribeWorker } from '../../src/worker/describe-worker.js';
import { readAbout } from './read-about.js';

// As the command does.
setFlagsFromString('--heap-growing-percent=75');
const { queue, api, limits: given } = readAbout();
const logger = createLogger('warn');
const account = accountOf({ api });
const connection = await openQueue(parseQueueUrl(queue, {}), { logger });
const limits = await AccountLimits.open(connection.store, describeQueueName(account), given ?? {}, logger);
const client = new DescribeClient({ baseUrl: api, token: 'any' });
const worker = await DescribeWorker.start({ connection, account, client, limits, logger });

async function end(): Promise<void> {
  await worker.stop();
  await client.close();
  await connection.close();
  process.exit();
}
process.on('disconnect', () => void end());
process.send?.('ready');
