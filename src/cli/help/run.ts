import { WEBHOOK_FLAGS_HELP } from './webhook.js';

export const RUN_HELP = `bulk-describe run <manifest> [-o <output>]

Describes every row of a manifest (.csv, .tsv, .jsonl, .list, each also .gz, or - for stdin). The output has
the manifest's columns, then prompt_1 to prompt_4, message_id and described_at. The same command again resumes.

The manifest
      --format <name>          csv, tsv, jsonl or list; needed for stdin
      --delimiter <char>       of a .csv, where its header does not show it; \`tab\` is one
      --url-column <name>      where the image URLs are (found, where one column has them)
      --key-column <name>      what identifies a row (else its image URL)
      --base-url <url>         what relative image paths are relative to
  -o, --output <path>          where prompts go (else beside the manifest: <name>.prompts.csv)
      --new-columns            rewrite an older output once that lacks columns the manifest has now

The API                                                                        environment
      --api <url>              the API, or \`simulator\`                         DESCRIBE_API_URL
      --token-file <path>      a file with the token; or put the token in      DESCRIBE_API_TOKEN
      --account <name>         whose limits these are (default)                DESCRIBE_ACCOUNT
      --dialect <name>         thenextleg, imaginepro, legnext or openai (by the API's host, else thenextleg)
      --attempts <n>           submits of one image at most (5)
      --deadline <duration>    from a submit to its completion (20m)
      --expire-after <duration>  when the API gives a message up and it is submitted again (the API's: 12m)
      --submit-method <m>      post or get; get puts the token into the URL (post)
      --model <name>           openai: the model that describes (required there)
      --prompt-file <path>     openai: what it is asked (our own, for a JSON list of four prompts)
      --choices <n>            openai: 4 for four answers of one prompt each, 1 for one with all four (1)

Limits, held over all workers of the account together
      --rate <n/duration>      submits (20/min)                                DESCRIBE_RATE
      --poll-rate <n/duration> polls (10/s)                                    DESCRIBE_POLL_RATE
      --max-in-flight <n>      submitted and not yet completed (10)            DESCRIBE_MAX_IN_FLIGHT
      --limit <n>              images paid for in this run at most

${WEBHOOK_FLAGS_HELP}
The queue
      --queue <url>            redis://..., rediss://... or embedded:<dir>     QUEUE_URL
                               (embedded, in the user's state directory)
      --no-work                only produce and write; other processes work

When it ends
      --accept <code,...>      failures with these codes do not make exit code 2
      --stop-failing <percent> stop when more of the last 50 images fail (50; 100 turns it off)
      --pay-again <n>          go on, and pay for n images, though the output hardly matches the manifest

What it says
      --dashboard[=<port>]     the board, run page and metrics of the queue, while it runs (3100)
      --dry-run                the preview alone: nothing is created or paid
      --json                   the receipt as JSON on stdout
      --quiet, --no-progress   less on stderr
      --log-level <level>      fatal, error, warn, info, debug, trace          LOG_LEVEL

Exit codes: 0 all described or accepted, 1 usage or a fatal error, 2 some rows failed, 3 token refused or quota
spent, 4 the API is down or too much fails, 5 another process has this output or queue, 130 interrupted.

  bulk-describe run paintings.csv --dry-run
  bulk-describe run paintings.csv --rate 1/3s --limit 100
  bulk-describe run paintings.jsonl.gz -o prompts.csv --queue redis://localhost:6379
  zcat urls.gz | bulk-describe run - --format list -o prompts.csv
`;
