import { DASHBOARD_DEFAULTS } from '../dashboard/access.js';
import { RUN_DEFAULTS, taskSchema } from '../run/run-options.js';
import type { ExportFormat } from '../run/export.js';
import { parseFinishBy } from '../run/finish-by.js';
import type { LogLevel } from '../shared/log.js';
import {
  COMMANDS,
  type CommandName,
  type OptionSpec,
  type ValueOf,
  SCHEDULES,
  SERVICE,
  group,
  option,
  parserOf,
  takesOptionsOf,
} from './option-spec.js';
import * as parse from './option-spec.js';
import { WORK_OPTIONS } from './work-options.js';

const MANIFEST = 'The manifest:';
const QUEUE = 'The queue:';
const CAPTIONS = 'Captions for trainers:';
const OUTPUT = 'What it prints and shows:';

/** Every option, by the heading that it has in the help and the commands that take it. */
const GROUPS = [
  group('The server:', ['serve'], {
    root: option(
      '--root <folder>',
      'the only folder it reads and writes, symbolic links included; paths of requests are relative to it',
      { default: 'the current folder' },
    ),
    work: option('--work', 'work on images of its account as well'),
    onDone: option(
      '--on-done <command>',
      'called through the shell at every end of a run: the receipt is on its stdin (or an object with error, ' +
        'manifest and output), the exit code in BULK_DESCRIBE_EXIT; also BULK_DESCRIBE_RUN, _OUTPUT, _OUTCOME ' +
        '(ended, refused, skipped) and _SCHEDULE; it has a minute',
    ),
  }),
  group('The schedule:', ['schedule add'], {
    cron: option('--cron <pattern>', 'minute, hour, day, month, weekday; six fields begin with seconds'),
    tz: option('--tz <zone>', 'whose clocks and dates count, such as Europe/Prague', {
      default: "this machine's",
    }),
  }),
  group('Where it listens:', ['dashboard'], {
    host: option(
      '--host <address>',
      "any other than this machine's own needs DASHBOARD_USER and DASHBOARD_PASSWORD",
      { default: DASHBOARD_DEFAULTS.host },
    ),
    port: option('--port <n>', '0 for a free one', {
      default: String(DASHBOARD_DEFAULTS.port),
      parse: parse.port,
    }),
    imageRoot: option('--image-root <folder>', 'whose images the run pages show; without it, none'),
    root: option('--root <folder>', 'whose outputs the pages of results show; without it, none'),
    readOnly: option('--read-only', 'nothing can be changed from here'),
  }),
  group('The simulated API:', ['simulate'], {
    port: option('--port <n>', 'where to listen', { default: 'a free one', parse: parse.port }),
    dialect: option('--dialect <name>', 'whose base URL to print; all are spoken, each on its own paths', {
      default: 'thenextleg',
      parse: parse.dialect,
    }),
    latencyMs: option('--latency <duration>', 'median time from a submit to its completion', {
      default: '1s',
    }),
    latencySpread: option('--spread <sigma>', 'of the lognormal latency; 0 for always the same', {
      default: '0.3',
      parse: parse.number,
    }),
    rateLimit: option('--rate-limit <n/duration>', 'more submits get 429'),
    maxInFlight: option('--max-in-flight <n>', 'more messages get 429'),
    retryAfter: option('--retry-after <how>', 'what a 429 says: seconds, date or none', {
      default: 'seconds',
      parse: parse.oneOf(['seconds', 'date', 'none']),
    }),
    token: option('--require-token <token>', 'others get 401', { isSecret: true }),
    failures: option(
      '--fail <kind=share,...>',
      'fail so often: http500, quota, resetBefore, reject, reject400, noUrls, noSchema, noFormat, reset, badJson, html, hang, incomplete, ' +
        'never, pollError, pollMissing',
      { parse: parse.failures },
    ),
    seed: option('--seed <n>', 'of all random decisions', { parse: parse.integer(0) }),
    journal: option('--journal <path>', 'a line for each accepted submit'),
  }),
  group(MANIFEST, ['run', 'verify', 'enqueue', 'schedule add'], {
    format: option('--format <name>', 'csv, tsv, jsonl, json, parquet or list; needed for stdin', {
      default: "by the name's ending",
      parse: parse.oneOf(taskSchema.shape.format.unwrap().options),
    }),
    delimiter: option(
      '--delimiter <char>',
      'the delimiter of a .csv, where it cannot be detected; or `tab`',
      { parse: parse.delimiter },
    ),
    header: option(
      '--no-header',
      'the first record of a csv or tsv is a row like any other: columns are c1, c2, ...',
    ),
    union: option('--union', 'of several manifests: all columns, even those that some lack'),
    columns: option('--columns <name,...>', 'the columns of a csv or tsv without a header'),
    encoding: option('--encoding <name>', 'of text: windows-1252, shift_jis, utf-16le, ...', {
      default: 'UTF-8, or as its byte order mark says',
      parse: parse.encoding,
    }),
    records: option('--records <path>', 'the list of records in a json, its keys joined by dots', {
      default: 'the one list of objects',
    }),
    urlColumn: option('--url-column <name>', 'where the image URLs are', {
      default: 'the one column that has some',
    }),
    keyColumn: option('--key-column <name>', 'what identifies a row', { default: 'its image URL' }),
    baseUrl: option('--base-url <url>', 'what relative image paths are relative to, on the web'),
    imageRoot: option(
      '--image-root <folder>',
      'the folder of local images, to which their paths are relative',
      { default: "the manifest's" },
    ),
  }),
  group(MANIFEST, ['run', 'enqueue', 'schedule add', 'reparse'], {
    listSeparator: option(
      '--list-separator <text>',
      'between the items of a list; `json` writes it as JSON',
      { default: "', '" },
    ),
  }),
  group(MANIFEST, ['run', 'enqueue', 'schedule add'], {
    output: option(
      '-o, --output <path>',
      'where prompts go, in a .csv, .tsv, .jsonl or .parquet; `.simulated.csv` with the simulator',
      { default: '<manifest>.prompts.csv', onlyTyped: true },
    ),
    titleColumn: option('--title-column <name>', 'what to call the images on the dashboard', {
      default: 'title, name, caption, label, ... where there is one',
    }),
    keep: option('--keep <column,...>', "the manifest's columns to keep in the output", { default: 'all' }),
    drop: option('--drop <column,...>', "the manifest's columns to leave out of the output"),
    escapeFormulas: option('--escape-formulas', 'put an apostrophe before what spreadsheets would compute'),
    promptsAs: option('--prompts-as <how>', 'columns, or rows: a line for each prompt', {
      default: 'columns',
      parse: parse.oneOf(taskSchema.shape.promptsAs.unwrap().options),
    }),
    inOrder: option('--in-order', 'rewrite the output in the order of the manifest when the run ends'),
    newColumns: option('--new-columns', 'rewrite, once, an older output that lacks columns of the manifest'),
  }),
  group('What it writes:', ['export'], {
    to: option('--to <format>', 'sidecar, hf, kohya, jsonl, parquet or csv', {
      parse: parse.oneOf<ExportFormat>(['sidecar', 'hf', 'kohya', 'jsonl', 'parquet', 'csv']),
    }),
    output: option('-o, --output <path>', 'a folder for sidecar and hf, else a file', { onlyTyped: true }),
  }),
  group('What it writes:', ['report'], {
    output: option('-o, --output <path>', 'the report, a .html', {
      default: '<output>.report.html',
      onlyTyped: true,
    }),
    limit: option('--limit <n>', 'rows in it, the newest', { default: '20000; with --embed 2000' }),
    embed: option('--embed', 'small pictures in it, which are read or fetched once'),
    allowPrivate: option('--allow-private', 'fetch them from this machine and private networks too'),
    overwrite: option('--overwrite', 'replace a file that is there and is no report', { onlyTyped: true }),
  }),
  group(CAPTIONS, ['run'], {
    sidecar: option('--sidecar <folder>', 'when the run ends, a `.txt` there for each image of the output'),
  }),
  group(CAPTIONS, ['run', 'export'], {
    sidecarName: option(
      '--sidecar-name <text>',
      "an image's name, with columns of its row, such as `{{id}}`",
      { default: "the image's own" },
    ),
    promptColumn: option('--prompt-column <name>', 'the prompt or field that captions are made of', {
      default: 'the only one, or prompt_1',
    }),
    ar: option('--no-ar', 'without `--ar W:H` at the end'),
    overwrite: option('--overwrite', 'replace files that are there', { onlyTyped: true }),
  }),
  ...WORK_OPTIONS,
  group(QUEUE, ['run'], {
    queue: option('--queue <url>', '`redis://`, `rediss://` or `embedded:<dir>`', {
      env: 'QUEUE_URL',
      default: RUN_DEFAULTS.queue,
    }),
    work: option('--no-work', 'only produce and write; other processes submit and poll'),
  }),
  group(QUEUE, [...SERVICE, ...SCHEDULES], {
    queue: option('--queue <url>', 'redis://... or rediss://...', { env: 'QUEUE_URL' }),
  }),
  group('When it ends:', ['run', 'verify', 'enqueue', 'schedule add'], {
    accept: option('--accept <code,...>', 'failures with these codes do not make exit code 2'),
  }),
  group('When it ends:', ['run', 'enqueue', 'schedule add'], {
    stopFailing: option(
      '--stop-failing <percent>',
      'stop when more than this percentage of the last 50 images fail; 100 never stops',
      {
        default: String(RUN_DEFAULTS.stopFailing),
        parse: parse.percent,
      },
    ),
    payAgain: option('--pay-again <n>', 'pay for n images, though the output hardly matches the manifest', {
      parse: parse.integer(0),
      onlyTyped: true,
    }),
  }),
  group('When it ends:', ['run'], {
    retryAll: option('--retry-rejected', 'also retry images that an earlier run recorded as `rejected`', {
      onlyTyped: true,
    }),
  }),
  group('When it ends:', ['run', 'serve'], {
    ping: option(
      '--ping <url>',
      'called as healthchecks.io takes it: `/start`, then the URL itself for exit code 0, else `/<exit code>`; ' +
        "a server's may hold `{schedule}`, for the schedule's name",
      { env: 'BULK_DESCRIBE_PING', isSecret: true, parse: parse.pingUrl },
    ),
  }),
  group('When it ends:', ['run'], {
    finishBy: option(
      '--finish-by <time>',
      'submit nothing more from then on (exit code 4): the next `06:00`, or a date and time such as 2026-01-31T06:00',
      { parse: parseFinishBy },
    ),
  }),
  group('What it looks at:', ['plan'], {
    checkUrls: option(
      '--check-urls',
      'ask the hosts for each image that would be submitted, two at a time each: exit code 2 where some are bad',
      { onlyTyped: true },
    ),
  }),
  group('Health:', ['worker', 'serve'], {
    healthPort: option(
      '--health-port <n>',
      '/healthz: it is alive; /readyz: Redis takes writes, and it takes work',
      { parse: parse.port },
    ),
    healthHost: option('--health-host <address>', 'where the health port listens', {
      default: '127.0.0.1',
      needs: { name: 'healthPort', text: '--health-port <n>' },
    }),
  }),
  group(OUTPUT, ['run', 'serve'], {
    dashboard: option('--dashboard [port]', 'Bull Board, run pages and metrics, while it runs', {
      default: String(DASHBOARD_DEFAULTS.port),
      parse: parse.port,
    }),
  }),
  group(OUTPUT, ['run'], {
    dryRun: option('--dry-run', 'the preview alone: nothing is created or paid for', { onlyTyped: true }),
    progress: option('--no-progress', 'no progress line on stderr'),
  }),
  group(OUTPUT, ['status'], {
    check: option('--check', 'what a person has to see to, and exit code 2; else `ok` and 0', {
      onlyTyped: true,
    }),
    watch: option('--watch', 'redrawn each second until Ctrl-C; into a pipe, a block every ten seconds', {
      onlyTyped: true,
    }),
  }),
  group(OUTPUT, ['run', 'verify', 'status', 'schedule list', 'config'], {
    json: option('--json', 'the result as JSON on stdout'),
  }),
  group(OUTPUT, ['run', 'worker', 'serve', 'dashboard', 'webhook'], {
    quiet: option('--quiet', 'less on stderr'),
  }),
  group(OUTPUT, ['run', 'worker', 'serve', 'dashboard', 'webhook', 'status'], {
    logLevel: option('--log-level <level>', 'fatal, error, warn, info, debug, trace or silent', {
      env: 'LOG_LEVEL',
      default: 'warn',
      parse: parse.oneOf<LogLevel>(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']),
    }),
  }),
  group('Options in a file:', [...COMMANDS, 'config'], {
    config: option('--config <path>', 'a file with options: JSON or YAML', {
      default: '`bulk-describe.config.json` or `.yaml` in the current folder',
      onlyTyped: true,
    }),
  }),
];

type ValuesOf<Group, Command> = Group extends { commands: readonly (infer Taking)[]; options: infer Options }
  ? Command extends Taking
    ? (values: { readonly [Name in keyof Options]?: ValueOf<Options[Name]> }) => void
    : never
  : never;

/** The values of a command's options. Those that were not given are undefined. */
export type OptionsOf<Command extends CommandName> = Command extends 'plan'
  ? OptionsOfGroups<'run'> & OptionsOfGroups<'plan'>
  : OptionsOfGroups<Command>;

type OptionsOfGroups<Command extends CommandName> =
  ValuesOf<(typeof GROUPS)[number], Command> extends (
    values: infer Values extends Readonly<Record<string, unknown>>,
  ) => void
    ? Values
    : never;

/** An option of one command; `name` is the key of its value. */
export interface CommandOption extends OptionSpec {
  readonly name: string;
  readonly heading: string;
  /** Of a request: the server has it as well, so that a request has it only where it is meant for this request. */
  readonly isServers?: boolean;
}

/**
 * The options of a command, its own ones first. A request leaves to the server what is not said for it: the environment
 * of `enqueue` counts for nothing but the queue.
 */
export function optionsOf(command: CommandName): CommandOption[] {
  const isRequest = command === 'enqueue' || command === 'schedule add';
  const names: readonly string[] = takesOptionsOf(command);
  return GROUPS.filter(({ commands }) => commands.some((taking) => names.includes(taking))).flatMap(
    ({ heading, commands, options }) =>
      Object.entries<OptionSpec>(options).map(([name, spec]) => {
        const option = { name, heading, parse: parserOf(spec.flags), ...spec };
        const isServers = isRequest && name !== 'queue' && commands.some((taking) => taking === 'serve');
        if (!isServers) return option;
        const preset = spec.env === undefined ? spec.default : "the server's";
        return { ...option, env: undefined, default: preset, isServers };
      }),
  );
}
