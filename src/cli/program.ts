import type { Command } from 'commander';
import { createCommand, createParent, unknownCommand } from './command.js';

const AFTER_HELP = `Try it without an account:
  bulk-describe run examples/paintings.csv --api simulator --rate 10/s

With Redis, for several processes and machines: worker, serve, enqueue, status, retry, cancel, schedule, dashboard,
webhook. \`bulk-describe help --all\` shows everything, \`bulk-describe <command> --help\` one command's options and examples.`;

const RUN_ARGUMENT_HINT = " (its id, or its output's path)";

/** Each command is loaded when it is used, so that none waits for what another needs. */
const LOCAL_COMMANDS = [
  createCommand({
    name: 'run',
    args: '<manifest...>',
    usage: '<manifest...> [-o <output>]',
    summary: 'describe every row; the same command again resumes',
    about:
      'Describes every row of a manifest (.csv, .tsv, .jsonl, .json, .parquet, .list; text also .gz, or - for stdin), or of a folder of images. The output has ' +
      "the manifest's columns, then prompt_1 to prompt_4, message_id and described_at. The same command again resumes.",
    notes: `Exit codes: 0 all described or accepted, 1 usage or a fatal error, 2 some rows failed, 3 token refused, quota
spent or nothing described, 4 the API is down, too much fails or a budget is spent, 5 another process has this output or
queue, 130 interrupted.`,
    examples: `
  bulk-describe run paintings.csv --dry-run
  bulk-describe run paintings.csv --rate 1/3s --limit 100
  bulk-describe run ./photos --api http://127.0.0.1:11434 --dialect openai --model qwen2.5vl
  bulk-describe run paintings.jsonl.gz -o prompts.csv --queue redis://localhost:6379
  bulk-describe run 'shards/*.parquet' -o prompts.parquet
  zcat urls.gz | bulk-describe run - --format list -o prompts.csv`,
    hint: ' (or - for stdin)',
    onRefusal: async (options, error) => (await import('./run.js')).pingRefusal(options, error),
    load: async () => (await import('./run.js')).run,
  }),
  createCommand({
    name: 'plan',
    args: '<manifest...>',
    usage: '<manifest...> [-o <output>]',
    summary: 'what `run` would do, cost and take; nothing is paid for',
    about:
      'Says what `run` with the same flags would do, and does none of it: rows, images, duplicates and what cannot be used, what is done ' +
      'already, calls, time and cost, and which signed URLs expire before their turn. How long an answer takes is what `run` has measured of the ' +
      'account, where it says so; here it is assumed. With --json, one object.',
    notes: 'Exit codes: 0, 1 for wrong usage, 2 where --check-urls has found images that cannot be had.',
    examples: `
  bulk-describe plan paintings.csv --rate 1/3s --price 0.01
  bulk-describe plan paintings.csv --sample 20 --check-urls
  bulk-describe plan paintings.csv --finish-by 06:00 --json | jq .finishBy`,
    hint: ' (or - for stdin)',
    load: async () => (await import('./run.js')).plan,
  }),
  createCommand({
    name: 'verify',
    args: '<manifest> <output...>',
    usage: '<manifest...> <output>',
    summary: 'recount: described, failed, missing, extra, twice',
    about:
      "Recounts, from the files alone: how many of the manifest's rows are described, failed or missing; and how many " +
      'rows the output has beyond them (extra), or more than once (twice). Exit code 0 when every row is described, or has ' +
      'failed with an accepted code, and none is there twice; else 2. The URL and key columns, --base-url and --image-root are taken from the run file beside the output where they are not given, ' +
      'and so are the earlier outputs (of a schedule) that count with this one.',
    examples: `
  bulk-describe verify paintings.csv paintings.prompts.csv`,
    load: async () => (await import('./run.js')).verify,
  }),
  createCommand({
    name: 'reparse',
    args: '<output>',
    summary: "read a model's kept answers again, unpaid",
    about:
      'Reads the answers that the failures file beside an output has kept (column `answer`), as --count, --fields or --schema say now, and ' +
      'writes those that fit to the output. Nothing is asked or paid. Exit code 0 when all fit, else 2.',
    examples: `
  bulk-describe reparse paintings.prompts.csv --fields "caption, tags[]"`,
    load: async () => (await import('./run.js')).reparse,
  }),
  createCommand({
    name: 'export',
    args: '<output>',
    usage: '<output> --to <format> -o <path>',
    summary: 'an output as a dataset for trainers, or in another format',
    about:
      'Writes what an output holds: sidecar (a .txt an image), hf (metadata.jsonl for ImageFolder), kohya (metadata for sd-scripts), or the ' +
      'same rows as jsonl, parquet or csv. It only reads the output, also while a run goes on. The `.run` file beside it says where images are.',
    examples: `
  bulk-describe export photos.prompts.csv --to sidecar -o photos --no-ar
  bulk-describe export photos.prompts.csv --to hf -o photos --prompt-column prompt_2
  bulk-describe export paintings.prompts.csv --to sidecar -o captions --sidecar-name '{{id}}'
  bulk-describe export paintings.prompts.csv --to parquet -o paintings.parquet`,
    load: async () => (await import('./run.js')).exportRows,
  }),
  createCommand({
    name: 'report',
    args: '<output>',
    usage: '<output> [-o <file.html>]',
    summary: 'all results as one HTML file that opens offline',
    about:
      'Writes what an output and its failures file hold as one HTML file: the counts, charts, and all rows, to be searched, filtered by failure ' +
      'code and sorted. Images are linked, or small ones embedded. It only reads the output, also while a run goes on; an earlier report is replaced.',
    examples: `
  bulk-describe report paintings.prompts.csv
  bulk-describe report photos.prompts.csv --embed -o photos.html`,
    load: async () => (await import('./run.js')).report,
  }),
  createCommand({
    name: 'simulate',
    summary: 'a describe API on localhost',
    about:
      'A describe API on localhost, for trying things out. Prints its base URL and answers until it is stopped. Its ' +
      'message ids start with sim-; the same URL gets the same prompts each time.',
    examples: `
  bulk-describe simulate --port 8080 --latency 20s --fail http500=0.05
  bulk-describe run paintings.csv --api http://127.0.0.1:8080/v2 --rate 10/s
  bulk-describe run paintings.csv --api http://127.0.0.1:8080 --dialect openai --model any -o openai.csv`,
    load: async () => (await import('./companions.js')).simulate,
  }),
  createCommand({
    name: 'config',
    args: '[command...]',
    usage: '[command]',
    summary: 'what holds for a command, and where it is from',
    about:
      'Shows the options that hold for a command (`run`, where none is named) when none is typed: from the environment, from ' +
      '`bulk-describe.config.json` or `.yaml` in the current folder, or by default. Secrets are not shown. What the command ' +
      'would refuse is refused here.',
    examples: `
  bulk-describe config
  bulk-describe config schedule add --config nightly/bulk-describe.config.yaml
  bulk-describe config worker --json | jq .options.rate`,
    load: async () => (await import('./config.js')).config,
  }),
  createCommand({
    name: 'completion',
    args: '<shell>',
    usage: '<bash|zsh|fish>',
    summary: 'what a shell needs to complete commands and options',
    about:
      'Prints a script that completes commands, options, their known values and paths. It starts nothing.',
    examples: `
  source <(bulk-describe completion bash)      # in ~/.bashrc; with zsh in ~/.zshrc
  bulk-describe completion fish > ~/.config/fish/completions/bulk-describe.fish`,
    load: async () => {
      const { completion } = await import('./completion.js');
      return (_options, shell = '') => Promise.resolve(completion(createProgram(), shell));
    },
  }),
];

const SERVICE_COMMANDS = [
  createCommand({
    name: 'worker',
    about:
      'Works for runs that other processes or machines feed (`run --no-work`, `run`, `serve`): any number of workers, ' +
      'on any machine that reaches Redis and the API; no files are needed. The limits belong to the account: they hold ' +
      'over all its workers together, so more workers make it no faster than the account allows; those that are given ' +
      'are set for all workers. It runs until it is stopped: the first SIGTERM or Ctrl-C finishes what is on the wire, ' +
      'and releases the other images to the other workers at once. When the API refuses the token, the quota is spent, ' +
      'or no image is described at all (a wrong model or URL), it takes no more images, says so, is not ready, and stays up.',
    examples: `
  bulk-describe worker --queue redis://redis.example:6379
  bulk-describe worker --queue redis://redis.example:6379 --rate 1/3s --health-port 8081`,
    hint: ' (runs are fed by `run --no-work` or `serve`)',
    load: async () => (await import('./serve.js')).worker,
  }),
  createCommand({
    name: 'serve',
    about:
      'A server: executes the runs that `enqueue` and `schedule` put into the queue, several at once, as `run` would. ' +
      'It needs the files and Redis; workers (`bulk-describe worker`) process the images, or this process as well with ' +
      '--work. The API options hold for requests that name none. It runs until it is stopped: the first SIGTERM or ' +
      'Ctrl-C writes what has come, releases the runs to the queue, and exits 0; the next start goes on with them. So ' +
      'does another server, when this one dies.',
    examples: `
  bulk-describe serve --work --root /data --queue redis://localhost:6379
  bulk-describe serve --root /data --on-done 'jq .failed | mail -s "exit $BULK_DESCRIBE_EXIT" me@example.org'`,
    hint: ' (give it runs with `bulk-describe enqueue`)',
    load: async () => (await import('./serve.js')).serve,
  }),
  createCommand({
    name: 'enqueue',
    args: '<manifest...>',
    usage: '<manifest...> [-o <output>]',
    about:
      'Has a server (`bulk-describe serve`) execute a run. Returns when the server has opened both files, with the ' +
      "run's id; or fails with the server's own words and exit code. Paths are the server's, relative to its --root. " +
      'Without a server nothing is enqueued. Ctrl-C before a server has begun takes the request out of the queue again.',
    examples: `
  bulk-describe enqueue paintings.csv -o prompts.csv --queue redis://redis.example:6379
  bulk-describe enqueue paintings.csv --limit 100`,
    load: async () => (await import('./requests.js')).enqueue,
  }),
  createCommand({
    name: 'status',
    args: '[run]',
    about:
      'Shows what goes on at a queue on Redis: the runs of the last day with their rows, rates and ends; what waits for a ' +
      'server; the accounts with their limits and workers; and what is paused or wrong, since when and why. A run (its id, or its ' +
      "output's path) shows all that is known of it. It only reads; times are local. docs/status.md explains the JSON.",
    notes: `With --check: exit code 0 and a line that begins with ok, or 2 and what a person has to see to; 1 when the queue does
not answer.`,
    examples: `
  bulk-describe status --queue redis://localhost:6379
  bulk-describe status paintings.prompts.csv --watch
  bulk-describe status --check || mail -s 'bulk-describe needs help' me@example.org < /dev/null
  bulk-describe status --json | jq '.accounts[].pauses'`,
    load: async () => (await import('./status.js')).status,
  }),
  createCommand({
    name: 'retry',
    args: '<run>',
    about:
      'Puts back the failed rows of a run that has ended, including those that the same command would not retry ' +
      '(`rejected`). A run that a server has executed is executed again at once, for its failed rows alone. For a plain ' +
      '`run` the next start takes them up; its command is printed. It needs Redis: with the embedded queue ' +
      '`run --retry-rejected` does the same.',
    examples: `
  bulk-describe retry paintings.prompts.csv
  bulk-describe retry k3v9q0zt5w1x`,
    hint: RUN_ARGUMENT_HINT,
    load: async () => (await import('./requests.js')).retry,
  }),
  createCommand({
    name: 'cancel',
    args: '<run>',
    about:
      'Stops a run, wherever its coordinator is: nothing more is submitted, its unsubmitted images leave the queue, what ' +
      'is in flight is finished and kept, and the run ends with exit code 130. A run that waits for a server leaves the ' +
      'queue. The same command, or `enqueue`, goes on with it later.',
    examples: `
  bulk-describe cancel paintings.prompts.csv
  bulk-describe cancel k3v9q0zt5w1x`,
    hint: RUN_ARGUMENT_HINT,
    load: async () => (await import('./requests.js')).cancel,
  }),
  createCommand({
    name: 'dashboard',
    about:
      'Shows what goes on at a queue, in a browser: the runs with their newest prompts (/runs) and all results, Bull Board with every ' +
      'job and its log (/board), and figures for Prometheus (/metrics). Failed images can be taken up again on ' +
      'the page of their run. Prints its URL and answers until it is stopped. `run --dashboard[=<port>]` does the same beside a run, on ' +
      'any queue, and `serve --dashboard[=<port>]` beside a server.',
    notes: `DASHBOARD_USER and DASHBOARD_PASSWORD say who is let in. The password goes over the wire as the browser sends it:
put a proxy with TLS in front of it where others can listen. /healthz needs no password: 200 while the queue takes
writes, else 503 and why.`,
    examples: `
  bulk-describe dashboard --queue redis://localhost:6379
  DASHBOARD_USER=ada DASHBOARD_PASSWORD=... bulk-describe dashboard --host 0.0.0.0 --read-only`,
    load: async () => (await import('./companions.js')).dashboard,
  }),
  createCommand({
    name: 'webhook',
    about:
      "Receives the API's deliveries for an account's workers in other processes, which are started with --webhook-url. " +
      'Put a proxy with TLS in front of it, which forwards what comes below the public URL. Prints where it listens, and ' +
      'answers until it is stopped. A delivery is no more than a hint: the worker asks the API itself, so a forged, ' +
      'doubled or late one does no harm, and a lost one makes an image late. Give it the API, account and dialect that ' +
      'the workers have.',
    examples: `
  bulk-describe webhook --webhook-listen 127.0.0.1:8787 --queue redis://redis.example:6379
  bulk-describe worker --webhook-url https://hooks.example.org/describe --queue redis://redis.example:6379`,
    load: async () => (await import('./companions.js')).webhook,
  }),
];

const SCHEDULE_COMMANDS = [
  createCommand({
    name: 'schedule add',
    args: '<name> <manifest...>',
    usage: '<name> <manifest...> -o <output> --cron <pattern>',
    summary: 'adds a schedule, or changes the one of that name',
    about:
      'Adds a schedule, or changes the one of that name. {date} in the name of the output starts a new file each night ' +
      "(YYYY-MM-DD): rows that other dates' files in its folder hold are done, and are neither paid for nor written " +
      "again. Relative paths are the server's. Names have letters, digits, dashes and underscores.",
    examples: `
  bulk-describe schedule add nightly paintings.csv -o 'prompts-{date}.csv' --cron "0 2 * * *" --tz Europe/Prague`,
    load: async () => (await import('./schedule.js')).add,
  }),
  createCommand({
    name: 'schedule list',
    about: 'Shows the schedules: when each comes next, and how it ended last.',
    examples: `
  bulk-describe schedule list --json | jq .[].next`,
    load: async () => (await import('./schedule.js')).list,
  }),
  createCommand({
    name: 'schedule run',
    args: '<name>',
    about: 'Has a server execute a schedule now, beside its times.',
    examples: `
  bulk-describe schedule run nightly`,
    load: async () => (await import('./schedule.js')).run,
  }),
  createCommand({
    name: 'schedule remove',
    args: '<name>',
    about: 'Removes a schedule. A run of it that is going on goes on.',
    examples: `
  bulk-describe schedule remove nightly`,
    load: async () => (await import('./schedule.js')).remove,
  }),
];

/** The command line. Its own help lists the commands that need no Redis; who needs more asks for them. */
export function createProgram(): Command {
  const about = 'A manifest of image URLs in, a file of prompts out.';
  const program = createParent('bulk-describe', about, AFTER_HELP);
  for (const command of LOCAL_COMMANDS) program.addCommand(command);
  for (const command of [...SERVICE_COMMANDS, createSchedule()])
    program.addCommand(command, { hidden: true });
  return program.addCommand(createHelp(program), { hidden: true });
}

function createSchedule(): Command {
  const schedule = createParent(
    'schedule',
    'Runs a manifest again and again, mostly each night: `bulk-describe serve` executes it, where the files are. Only rows ' +
      'that are not done are paid for, however the manifest grows, shrinks or is re-ordered. Needs Redis.',
    `A run that was missed while no server was running is executed once when one starts. A run that comes due while the
one before is still going on is skipped.

Examples:
  bulk-describe schedule add nightly paintings.csv -o 'prompts-{date}.csv' --cron "0 2 * * *" --tz Europe/Prague
  bulk-describe schedule list`,
  );
  for (const command of SCHEDULE_COMMANDS) schedule.addCommand(command);
  return schedule;
}

function createHelp(program: Command): Command {
  const help = createParent('help', 'Shows the help of a command.', '').arguments('[command]');
  return help.option('--all', 'of every command').action((name?: string, options: { all?: boolean } = {}) => {
    const command = program.commands.find((known) => known.name() === name);
    if (name !== undefined && command === undefined) throw unknownCommand(program, name);
    (command ?? program).outputHelp();
    if (options.all !== true) return;
    for (const each of program.commands.flatMap((known) => [known, ...known.commands])) each.outputHelp();
  });
}
