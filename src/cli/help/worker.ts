import { WEBHOOK_FLAGS_HELP } from './webhook.js';

export const WORKER_HELP = `bulk-describe worker

Works for runs that other processes or machines feed (\`run --no-work\`, \`run\`, \`serve\`): any number of them, on any
machine that reaches Redis and the API; no files are needed. The limits belong to the account: they hold over all
its workers together, so more workers make it no faster than the account allows. Runs until it is told to stop: the
first SIGTERM or Ctrl-C finishes what is on the wire, and hands the other images to the other workers at once.

The API                                                                        environment
      --api <url>              the API, or \`simulator\`                         DESCRIBE_API_URL
      --token-file <path>      a file with the token; or put the token in      DESCRIBE_API_TOKEN
      --account <name>         whose limits these are (default)                DESCRIBE_ACCOUNT
      --dialect, --submit-method, --expire-after, --model, --prompt-file, --choices    see \`run --help\`

Limits of the account; those that are given are set for all its workers, the others are taken from it
      --rate <n/duration>      submits (20/min)                                DESCRIBE_RATE
      --poll-rate <n/duration> polls (10/s)                                    DESCRIBE_POLL_RATE
      --max-in-flight <n>      submitted and not yet completed (10)            DESCRIBE_MAX_IN_FLIGHT

${WEBHOOK_FLAGS_HELP}
The queue
      --queue <url>            redis://... or rediss://...                     QUEUE_URL

For whoever watches it
      --health-port <n>        GET /healthz: it is alive; GET /readyz: Redis answers and it takes images
      --health-host <address>  where that listens (127.0.0.1)
      --quiet                  less on stderr
      --log-level <level>      fatal, error, warn, info, debug, trace          LOG_LEVEL

When the API refuses the token or the quota is spent it takes no more images, says so, is not ready, and stays up.

  bulk-describe worker --queue redis://redis.example:6379
  bulk-describe worker --queue redis://redis.example:6379 --rate 1/3s --health-port 8081
`;
