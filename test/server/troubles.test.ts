import { expect, test } from 'vitest';
import { TROUBLE_KINDS, troublesOf } from '../../src/service/troubles.js';
import type { RunView, ServiceStatus } from '../../src/service/views.js';

type Facts = Parameters<typeof troublesOf>[0];

const NOW = 100_000;
const NO_SERVER = 'no server is running: start `bulk-describe serve`';
const server = { host: 'h', pid: 1, root: '/data', since: 0, runsAtOnce: 20, runs: [] };
const account: ServiceStatus['accounts'][number] = {
  ...{ account: 'api@x', queueName: 'describe@x', rate: '20/min', pollRate: '10/s', maxInFlight: 10 },
  ...{ share: 1, learnedRate: '20/min', inFlight: 0, waiting: 0, delayed: 0, workers: [], pauses: [] },
};
const run: RunView = {
  ...{
    run: 'r1',
    account: 'api@x',
    queueName: 'describe@x',
    manifest: '/m.csv',
    output: '/o.csv',
    host: 'h',
    pid: 1,
  },
  ...{ startedAt: 0, seenAt: 80_000, rows: 1, described: 0, resumed: 0, copied: 0, failed: 0, perSecond: 0 },
  ...{ state: 'silent', served: false, inFlight: 0, waiting: 0 },
};
const waiting = {
  executing: 0,
  waiting: 2,
  next: [{ job: '1', manifest: 'm.csv', output: undefined, schedule: undefined, since: 5 }],
};

const facts = (status: Partial<Facts['status']>, others: Partial<Facts> = {}): Facts => ({
  status: {
    ...{ at: NOW, queue: 'redis://q', runs: [], accounts: [], homes: [server] },
    ...{ requests: { executing: 0, waiting: 0, next: [] }, ...status },
  },
  ...{ schedules: [], queue: undefined, isPaused: false, ...others },
});
const schedule = (nextAt: number, record: object = {}) => ({
  schedules: [{ name: 'nightly', nextAt, record }],
});

test.each<[string, Facts, object[]]>([
  ['nothing where all is well', facts({ runs: [{ ...run, state: 'running' }], accounts: [account] }), []],
  [
    'a queue that is full',
    facts({}, { queue: 'Redis is out of memory' }),
    [{ kind: 'queue', about: 'redis://q', text: 'Redis is out of memory', reason: '' }],
  ],
  [
    'a schedule that did not run, since nobody was there to run it',
    facts({ homes: [] }, schedule(80_000)),
    [{ kind: 'overdue', about: 'nightly', since: 80_000, text: 'schedule overdue', reason: NO_SERVER }],
  ],
  [
    'or because its server is busy',
    facts({}, schedule(80_000)),
    [{ kind: 'overdue', about: 'nightly', since: 80_000, text: 'schedule overdue', reason: '' }],
  ],
  ['not one that is about to run', facts({}, schedule(NOW - 9000)), []],
  ['nor one whose last run has described all', facts({}, schedule(NOW + 1, { lastAt: 1, lastExit: 0 })), []],
  [
    'a schedule whose last run has not',
    facts({}, schedule(NOW + 1, { lastAt: 7, lastExit: 2, lastText: '3 described, 1 failed' })),
    [
      {
        ...{ kind: 'failed', about: 'nightly', since: 7, text: 'schedule failed with exit code 2' },
        reason: '3 described, 1 failed',
      },
    ],
  ],
  [
    'runs that wait while there is no server',
    facts({ requests: waiting, homes: [] }),
    [{ kind: 'no-server', about: 'm.csv', since: 5, text: '2 runs wait', reason: NO_SERVER }],
  ],
  ['not those that wait for one that is there', facts({ requests: waiting }), []],
  [
    'a run whose coordinator is gone',
    facts({ runs: [run] }),
    [
      {
        ...{ kind: 'silent', about: '/o.csv', since: 80_000, text: 'run silent' },
        reason: 'the same command resumes it',
      },
    ],
  ],
  ['not one that was cancelled', facts({ runs: [{ ...run, cancelled: true }] }), []],
  [
    'an account that is paused, with what the API has said',
    facts({ accounts: [{ ...account, pauses: [{ kind: 'token', since: 9, reason: '401' }] }] }),
    [{ kind: 'token', about: 'api@x', since: 9, text: 'token refused', reason: '401' }],
  ],
  [
    'a 429, with its end',
    facts({ accounts: [{ ...account, pauses: [{ kind: 'rate', since: 9, until: NOW + 1, reason: '' }] }] }),
    [{ kind: 'rate', about: 'api@x', since: 9, until: NOW + 1, text: '429', reason: '' }],
  ],
  [
    'queues that a person has paused',
    facts({ accounts: [{ ...account, pauses: [{ kind: 'paused', reason: '' }] }] }, { isPaused: true }),
    [
      { kind: 'paused', about: 'runs', reason: 'servers take up nothing; resume it on the dashboard' },
      { kind: 'paused', about: 'api@x', reason: 'resume it on the dashboard' },
    ].map((trouble) => ({ ...trouble, text: 'the queue was paused by hand' })),
  ],
])('%s', (_title, given, expected) => {
  const troubles = troublesOf(given);
  expect(troubles).toEqual(expected);
  for (const { kind } of troubles) expect(TROUBLE_KINDS).toContain(kind);
});
