export const SIMULATE_HELP = `bulk-describe simulate

A describe API on localhost, for trying things out. Prints its base URL and answers until it is told to stop.
Its message ids start with sim-; the same URL gets the same prompts each time.

      --port <n>               where to listen (a free port)
      --dialect <name>         whose base URL to print (thenextleg); all dialects are spoken, each on its own paths
      --latency <duration>     median time from a submit to its completion (1s)
      --spread <sigma>         of the lognormal latency (0.3); 0 for always the same
      --rate-limit <n/duration>, --max-in-flight <n>    more get 429
      --retry-after <how>      seconds, date or none: what a 429 says
      --require-token <token>  others get 401
      --fail <kind=share,...>  fail so often: http500, quota, resetBefore, reject, reject400, reset, badJson,
                               html, hang, incomplete, never, pollError, pollMissing
      --webhooks <kind=share,...>    what goes wrong with deliveries, and how often: late, doubled, lost, early;
                               forged=<n/duration> sends made-up ones to the webhooks that submits have named
      --shape <name>           of completed messages: flat, nested, string, nested-string, seconds-date, mixed
      --seed <n>               of all random decisions
      --journal <path>         a line for each accepted submit, and taken up again at the next start

  bulk-describe simulate --port 8080 --latency 20s --fail http500=0.05
  bulk-describe simulate --webhooks lost=0.1,doubled=0.2,forged=50/s
  bulk-describe run paintings.csv --api http://127.0.0.1:8080/v2 --rate 10/s
  bulk-describe run paintings.csv --api http://127.0.0.1:8080 --dialect openai --model any -o openai.csv
`;
