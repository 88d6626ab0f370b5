/** The flags of the commands that work. */
export const WEBHOOK_FLAGS_HELP = `Webhooks: the API says when an image is done, so that it costs one poll and is finished at once
      --webhook-url <url>      the public URL that leads to the receiver; the API is told it, with a secret path
      --webhook-listen <host:port>   receive in this process (else: \`bulk-describe webhook\`)
      --webhook-secret-file <path>   what the path is made from                DESCRIBE_WEBHOOK_SECRET
                               (a random one, kept in the queue)
`;

export const WEBHOOK_HELP = `bulk-describe webhook

Receives the API's deliveries for an account's workers in other processes, which are started with --webhook-url.
Put a proxy with TLS before it, which forwards what comes below the public URL. Prints where it listens, and answers
until it is told to stop. A delivery is no more than a hint: the worker asks the API itself, so that a forged, doubled
or late one does no harm, and a lost one makes an image late.

      --webhook-listen <host:port>   where to listen (127.0.0.1:8787)
      --webhook-secret-file <path>   the workers' own, if they have one        DESCRIBE_WEBHOOK_SECRET
      --show-url               print the URL with the secret path, for a test or a proxy's configuration
      --webhook-url <url>      the public URL, for --show-url

The account that it receives for, as given to the workers                      environment
      --api <url>, --dialect <name>                                            DESCRIBE_API_URL
      --account <name>                                                         DESCRIBE_ACCOUNT
      --queue <url>            redis://... or rediss://...                     QUEUE_URL
      --quiet                  less on stderr
      --log-level <level>      fatal, error, warn, info, debug, trace          LOG_LEVEL

  bulk-describe webhook --webhook-listen 127.0.0.1:8787 --queue redis://redis.example:6379
  bulk-describe worker --webhook-url https://hooks.example.org/describe --queue redis://redis.example:6379
`;
