#!/usr/bin/env node
import { BulkDescribeError, UsageError, isSystemError, messageOf } from '../shared/errors.js';
import { nameCommand } from '../shared/command-name.js';
import { nearest } from '../shared/nearest.js';
import { keepHeapSmall } from '../shared/small-heap.js';
import { ALL_HELP, HELP, MAIN_HELP } from './help/index.js';
import { printable } from './text.js';

type Command = (argv: readonly string[], env: NodeJS.ProcessEnv) => Promise<number>;

/** Commands are loaded when they are used, so that none waits for what another needs. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./run-command.js')).runCommand,
  verify: async () => (await import('./verify-command.js')).verifyCommand,
  schedule: async () => (await import('./schedule-command.js')).scheduleCommand,
  simulate: async () => (await import('./simulate-command.js')).simulateCommand,
  status: async () => (await import('./status-command.js')).statusCommand,
  serve: async () => (await import('./serve-command.js')).serveCommand,
  enqueue: async () => (await import('./enqueue-command.js')).enqueueCommand,
  retry: async () => (await import('./retry-command.js')).retryCommand,
  cancel: async () => (await import('./cancel-command.js')).cancelCommand,
  worker: async () => (await import('./worker-command.js')).workerCommand,
  webhook: async () => (await import('./webhook-command.js')).webhookCommand,
  dashboard: async () => (await import('./dashboard-command.js')).dashboardCommand,
};

async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(rest.includes('--all') ? ALL_HELP : MAIN_HELP);
    return name === undefined ? 1 : 0;
  }
  if (name === '--version') {
    const { VERSION } = await import('../shared/version.js');
    process.stdout.write(`${VERSION}\n`);
    return 0;
  }
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) throw unknownCommand(name);
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(HELP[name] ?? MAIN_HELP);
    return 0;
  }
  nameCommand(name);
  const command = await load();
  return command(rest, env);
}

function unknownCommand(name: string): UsageError {
  const near = nearest(name, Object.keys(COMMANDS));
  const hint = near === undefined ? 'see `bulk-describe --help`' : `did you mean \`${near}\`?`;
  return new UsageError(`unknown command ${name}: ${hint}`);
}

/** One line for what is foreseen; a stack only for what is a defect of this program. */
function report(error: unknown): number {
  if (error instanceof BulkDescribeError) {
    process.stderr.write(`bulk-describe: ${printable(messageOf(error), Infinity)}\n`);
    return error.exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`bulk-describe: this is a defect, please report it:\n${text}\n`);
  return 1;
}

keepHeapSmall();

// A reader of our output that has had enough is no failure of the run.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: unknown) => {
    if (!isSystemError(error) || error.code !== 'EPIPE') throw error;
  });
}

try {
  process.exitCode = await main(process.argv.slice(2), process.env);
} catch (error) {
  process.exitCode = report(error);
}
