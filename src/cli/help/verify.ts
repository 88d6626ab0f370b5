export const VERIFY_HELP = `bulk-describe verify <manifest> <output>

Recounts, from the files alone: how many of the manifest's rows are described, failed or missing; and how many
rows the output has beyond them (extra), or more than once (twice). Exit code 0 when every row is described and
none twice, else 2.

      --format, --delimiter, --url-column, --key-column, --base-url    as for \`run\`; taken from the run file
                               beside the output where they are not given
                               Earlier outputs that count with this one (of a schedule) are read from there.
      --json                   the counts as JSON on stdout

  bulk-describe verify paintings.csv paintings.prompts.csv
`;
