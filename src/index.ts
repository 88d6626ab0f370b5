/**
 * bulk-describe as a library: everything the command line does, as functions with typed options and events.
 */
export { describeManifest } from './run/describe-manifest.js';
export type {
  Preview,
  Progress,
  Receipt,
  RunEvent,
  RunOptions,
  RunResult,
  RunStop,
} from './run/run-options.js';
export { RUN_DEFAULTS } from './run/run-options.js';
export { exitCodeOf } from './run/exit-code.js';
export { type VerifyOptions, verifyOutput } from './run/receipt.js';
export { type ExportOptions, exportOutput } from './run/export.js';
export type { Recount } from './writer/recount.js';
export type { ManifestFormat } from './producer/manifest.js';

export {
  type CompletedMessage,
  DescribeClient,
  type DescribeClientOptions,
  type DescribeOptions,
  type Message,
  type SubmitRequest,
  type Submitted,
  type WaitProgress,
} from './describe-api/client.js';
export {
  DIALECT_NAMES,
  type Dialect,
  type DialectName,
  type DialectSettings,
} from './describe-api/dialects/index.js';
export { type StatusWords, readStatusMessage, readStatusSubmitted } from './describe-api/dialects/polled.js';
export * from './describe-api/errors.js';

export { type Simulator, type SimulatorOptions, startSimulator } from './simulator/simulator.js';

export { type Dashboard, startDashboard } from './dashboard/dashboard.js';
export type { DashboardOptions } from './dashboard/access.js';
export type { QueueConnection } from './shared/queue/connection.js';

export { DEFAULT_LIMITS, type Limits } from './shared/limits.js';
export { type Rate, formatRate, parseDuration, parseRate } from './shared/limits.js';
export { BulkDescribeError, BusyError, FatalError, UsageError } from './shared/errors.js';
export {
  type DescribedOutcome,
  type ErrorCode,
  type FailedOutcome,
  type Outcome,
  type Prompts,
  ERROR_CODES,
} from './shared/jobs.js';
