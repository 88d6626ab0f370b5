export const ENQUEUE_HELP = `bulk-describe enqueue <manifest> [-o <output>]

Hands a run to a home (\`bulk-describe serve\`). Returns when the home has opened both files, with the run's id; or fails with
the home's own words and exit code. Paths are the home's, relative to its --root. Without a home nothing is enqueued.
Ctrl-C before a home has begun takes the request out of the queue again.

  -o, --output <path>          where prompts go (else beside the manifest: <name>.prompts.csv)
      --format, --delimiter, --url-column, --key-column, --base-url, --new-columns     as for \`run\`
      --attempts, --deadline, --limit, --accept, --stop-failing, --pay-again           as for \`run\`
      --api, --account, --dialect          the home's, unless they are given here
      --rate, --poll-rate, --max-in-flight set for all workers of the account, where they are given
      --queue <url>            redis://... or rediss://...; environment: QUEUE_URL

  bulk-describe enqueue paintings.csv -o prompts.csv --queue redis://redis.example:6379
  bulk-describe enqueue paintings.csv --limit 100
`;
