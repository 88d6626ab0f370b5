import { WEBHOOK_FLAGS_HELP } from './webhook.js';

export const SERVE_HELP = `bulk-describe serve

A home: executes the runs that \`enqueue\` and \`schedule\` put into the queue, several at once, as \`run\` would. It needs the
files and Redis; the images are worked on by workers (\`bulk-describe worker\`), or here as well with --work. It runs until
it is told to stop: the first SIGTERM or Ctrl-C writes what has come, hands the runs back to the queue, and exits 0;
the next start goes on with them. So does another home, when this one dies.

      --root <folder>          the only place it reads and writes, symbolic links included (the current folder);
                               the paths of requests are relative to it
      --work                   work on images of its account as well
      --dashboard[=<port>]     the board, run pages and metrics of the queue (3100)
      --on-done <command>      called through the shell at every end of a run: the receipt is on its stdin (or an object
                               with error, manifest and output), the exit code in BULK_DESCRIBE_EXIT; also BULK_DESCRIBE_RUN,
                               _OUTPUT, _OUTCOME (ended, refused, skipped) and _SCHEDULE. It has a minute.

The API, for requests that do not name one                                     environment
      --api <url>              the API, or \`simulator\`                         DESCRIBE_API_URL
      --token-file <path>      only with --work; or put the token in           DESCRIBE_API_TOKEN
      --account <name>         whose limits these are (default)                DESCRIBE_ACCOUNT
      --dialect, --submit-method, --expire-after, --model, --prompt-file, --choices    see \`run --help\`

Limits of the account; those that are given are set for all its workers, the others are taken from it
      --rate <n/duration>, --poll-rate <n/duration>, --max-in-flight <n>       see \`run --help\`

${WEBHOOK_FLAGS_HELP}
The queue, and whoever watches
      --queue <url>            redis://... or rediss://...                     QUEUE_URL
      --health-port <n>        GET /healthz: it is alive; GET /readyz: Redis answers and it takes runs
      --health-host <address>  where that listens (127.0.0.1)
      --quiet                  less on stderr
      --log-level <level>      fatal, error, warn, info, debug, trace          LOG_LEVEL

  bulk-describe serve --work --root /data --queue redis://localhost:6379
  bulk-describe serve --root /data --on-done 'jq .failed | mail -s "exit $BULK_DESCRIBE_EXIT" me@example.org'
`;
