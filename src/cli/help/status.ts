export const STATUS_HELP = `bulk-describe status [run] [--watch] [--json]

What goes on at a queue on Redis: the runs of the last day with their rows, rates and ends; what waits for a home;
the accounts with their limits and workers; and what is paused, since when and why. A run (its id, or its output's
path) shows all that is known of it. Reads only; times are local.

      --queue <url>            redis://... or rediss://...                     QUEUE_URL
      --watch                  redrawn each second until Ctrl-C; into a pipe, a block every ten seconds
      --json                   one JSON object (with --watch one a line), see docs/status.md

  bulk-describe status --queue redis://localhost:6379
  bulk-describe status paintings.prompts.csv --watch
  bulk-describe status --json | jq '.accounts[].pauses'
`;
