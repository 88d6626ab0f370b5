import type { RunEvent, RunOptions, RunResult } from '../run/run-options.js';
import { UsageError } from '../shared/errors.js';
import { createCommandLogger } from './command-logger.js';
import { dashboardCompanion } from './dashboard-flags.js';
import { parseFlags } from './flags.js';
import { previewLines } from './preview-text.js';
import { receiptLines, unbalancedLine } from './receipt-text.js';
import { withoutPassword } from './redis-queue.js';
import { RUN_FLAGS, limitsWarning, parseLogLevel, runOptionsOf } from './run-flags.js';
import { listenForSignals } from './signals.js';
import { Terminal } from './terminal.js';
import { printable, shellQuote } from './text.js';
import { checkReceiver, webhookCompanion } from './webhook-flags.js';

/** `bulk-describe run <manifest>`. @returns the exit code */
export async function runCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const flags = parseFlags('run', argv, RUN_FLAGS, env);
  const [manifest, ...rest] = flags.positionals;
  if (manifest === undefined) {
    throw new UsageError('run needs a manifest: bulk-describe run <manifest> (or - for stdin)');
  }
  if (rest.length > 0) throw new UsageError(`run takes one manifest, and ${rest[0] ?? ''} is a second one`);
  const options = runOptionsOf(manifest, flags, env);
  checkReceiver(flags, options, env);
  const terminal = new Terminal(process.stderr, {
    quiet: flags.has('quiet'),
    progress: !flags.has('no-progress'),
  });
  const logger = createCommandLogger(parseLogLevel(flags.get('log-level')), terminal);
  const signals = listenForSignals((name) => {
    terminal.say(`${name}: finishing what is on the wire; once more to quit at once`);
  });
  try {
    const dashboard = await dashboardCompanion(flags, env, {
      logger,
      onStarted: (url) => terminal.say(`dashboard ${url}`),
    });
    const receiver = await webhookCompanion(flags, options, {
      logger,
      onStarted: (url) => terminal.say(`webhooks ${url}`),
      warn: (text) => terminal.warn(text),
    });
    const { describeManifest } = await import('../run/describe-manifest.js');
    const result = await describeManifest({
      ...options,
      companions: [dashboard, receiver].filter((companion) => companion !== undefined),
      input: process.stdin,
      signal: signals.signal,
      logger,
      onEvent: (event) => showEvent(event, terminal, options),
    });
    terminal.end();
    printResult(result, options, terminal, { argv, json: flags.has('json') });
    return result.exitCode;
  } finally {
    terminal.end();
    signals.dispose();
  }
}

function showEvent(event: RunEvent, terminal: Terminal, options: RunOptions): void {
  switch (event.type) {
    case 'preview': {
      for (const line of previewLines(event.preview, new Date())) terminal.say(line);
      const warning = limitsWarning(event.preview.limits, options);
      if (warning !== undefined) terminal.warn(warning);
      return;
    }
    case 'phase':
      terminal.phase(event.text);
      return;
    case 'notice':
      terminal.warn(event.text);
      return;
    case 'progress':
      terminal.progress(event.progress);
      return;
    case 'opened':
  }
}

function printResult(
  result: RunResult,
  options: RunOptions,
  terminal: Terminal,
  how: { argv: readonly string[]; json: boolean },
): void {
  const { receipt, stop } = result;
  if (receipt === undefined) return;
  if (how.json) process.stdout.write(`${JSON.stringify(receipt)}\n`);
  const resume = ['bulk-describe', 'run', ...how.argv].map(withoutPassword).map(shellQuote).join(' ');
  const lines = receiptLines(result, options.manifest === '-' ? `${resume} < the same rows` : resume);
  if (how.json) {
    if (!receipt.balanced) terminal.warn(unbalancedLine(result));
    if (stop !== undefined) terminal.warn(`stopped: ${stop.reason}`);
    return;
  }
  for (const line of lines) process.stdout.write(`${printable(line, Infinity)}\n`);
}
