export const CANCEL_HELP = `bulk-describe cancel <run>

Stops a run, wherever its home is: nothing more is submitted, its unsubmitted images leave the queue, what is in flight is
finished and kept, and the run ends with exit code 130. A run that waits for a home leaves the queue. The same command, or
\`enqueue\`, goes on with it later.

      <run>                    its id, or its output's path
      --queue <url>            redis://... or rediss://...; environment: QUEUE_URL

  bulk-describe cancel paintings.prompts.csv
  bulk-describe cancel k3v9q0zt5w1x
`;
