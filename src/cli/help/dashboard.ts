export const DASHBOARD_HELP = `bulk-describe dashboard

Shows what goes on at a queue, in a browser: the runs with their newest prompts (/runs), Bull Board with every job and
its log (/board), and figures for Prometheus (/metrics). Failed images can be taken up again from the board. Prints its
URL and answers until it is told to stop. \`run --dashboard[=<port>]\` does the same beside a run, on any queue, and
\`serve --dashboard[=<port>]\` beside a home.

      --queue <url>            redis://... or rediss://...                     QUEUE_URL
      --host <address>         where to listen (127.0.0.1)
      --port <n>               (3100); 0 for a free one
      --read-only              nothing can be changed from here
                               who is let in; needed for any other --host      DASHBOARD_USER
                               than this machine's own                         DASHBOARD_PASSWORD
      --quiet                  less on stderr
      --log-level <level>      fatal, error, warn, info, debug, trace          LOG_LEVEL

The password goes over the wire as the browser sends it: put a proxy with TLS before it where others can listen.
/healthz needs no password: 200 while the queue answers, else 503.

  bulk-describe dashboard --queue redis://localhost:6379
  DASHBOARD_USER=ada DASHBOARD_PASSWORD=... bulk-describe dashboard --host 0.0.0.0 --read-only
`;
