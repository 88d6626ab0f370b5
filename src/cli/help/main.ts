export const MAIN_HELP = `bulk-describe: a manifest of image URLs in, a file of prompts out

  bulk-describe run <manifest> [-o <output>]      describe every row; the same command again resumes
  bulk-describe verify <manifest> <output>        recount: described, failed, missing, extra, twice
  bulk-describe simulate                          a describe API on localhost

Try it without an account:

  bulk-describe run examples/paintings.csv --api simulator --rate 10/s

With Redis, for several processes and machines: worker, serve, enqueue, status, retry, cancel, schedule, dashboard,
webhook. \`bulk-describe help --all\` shows everything, \`bulk-describe <command> --help\` one command's options and examples.
`;
