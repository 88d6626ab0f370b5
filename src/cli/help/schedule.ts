export const SCHEDULE_HELP = `bulk-describe schedule add <name> <manifest> -o <output> --cron <pattern>

Runs a manifest again and again, mostly each night: \`bulk-describe serve\` executes it, where the files are. Only rows that
are not done are paid for, however the manifest grows, shrinks or is re-ordered. Needs Redis.

  schedule add <name> <manifest> -o <output> --cron <pattern>    adds a schedule, or changes the one of that name
  schedule list [--json]       when each comes next, and how it ended last
  schedule run <name>          now, beside its times
  schedule remove <name>       a run that is going on goes on

      --cron <pattern>         minute, hour, day, month, weekday; six fields begin with seconds
      --tz <zone>              whose clocks and dates count, such as Europe/Prague (this machine's)
  -o, --output <path>          {date} in the file's name starts a new file each night (YYYY-MM-DD): rows that other
                               dates' files in its folder hold are done, and are neither paid for nor written again
      --limit, --account, ...  as for \`enqueue\`; relative paths are the home's
      --queue <url>            redis://... or rediss://...                     QUEUE_URL

A night that was missed while no home was running runs once when one starts. A run that comes while the one before is
still going on is skipped. Names have letters, digits, dashes and underscores.

  bulk-describe schedule add nightly paintings.csv -o 'prompts-{date}.csv' --cron "0 2 * * *" --tz Europe/Prague
  bulk-describe schedule list
`;
