export const RETRY_HELP = `bulk-describe retry <run>

Puts the failed rows of a run that has ended back, those too that the same command would not try again (\`rejected\`). A run that
a home has executed is executed again at once, for its failed rows alone. Of a plain \`run\` the next start takes them up; its
command is printed.

      <run>                    its id, or its output's path
      --queue <url>            redis://... or rediss://...; environment: QUEUE_URL

  bulk-describe retry paintings.prompts.csv
  bulk-describe retry k3v9q0zt5w1x
`;
