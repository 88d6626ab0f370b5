import { DASHBOARD_HELP } from './dashboard.js';
import { CANCEL_HELP } from './cancel.js';
import { ENQUEUE_HELP } from './enqueue.js';
import { MAIN_HELP } from './main.js';
import { RETRY_HELP } from './retry.js';
import { RUN_HELP } from './run.js';
import { SERVE_HELP } from './serve.js';
import { SCHEDULE_HELP } from './schedule.js';
import { SIMULATE_HELP } from './simulate.js';
import { STATUS_HELP } from './status.js';
import { VERIFY_HELP } from './verify.js';
import { WEBHOOK_HELP } from './webhook.js';
import { WORKER_HELP } from './worker.js';

export { MAIN_HELP };

/** Help of each command. */
export const HELP: Readonly<Record<string, string>> = {
  run: RUN_HELP,
  verify: VERIFY_HELP,
  schedule: SCHEDULE_HELP,
  simulate: SIMULATE_HELP,
  status: STATUS_HELP,
  worker: WORKER_HELP,
  webhook: WEBHOOK_HELP,
  dashboard: DASHBOARD_HELP,
  serve: SERVE_HELP,
  enqueue: ENQUEUE_HELP,
  retry: RETRY_HELP,
  cancel: CANCEL_HELP,
};

export const ALL_HELP = `${MAIN_HELP}\n${Object.values(HELP).join('\n')}`;
