import { resumeCommand } from '../../src/cli/run.js';
import { Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { localEnd, previewLines, receiptLines } from '../../src/cli/summary.js';
import { Terminal, logText, progressLine } from '../../src/cli/terminal.js';
import { printable, shellQuote, withoutPassword, wrapped } from '../../src/cli/text.js';
import type { Preview, Progress, Receipt, RunResult } from '../../src/run/run-options.js';
import { PLAIN_PREVIEW } from '../helpers/preview.js';

const preview: Preview = {
  ...PLAIN_PREVIEW,
  output: '/data/m.prompts.csv',
  rows: 200_100,
  images: 199_000,
  described: 1000,
  toCopy: 100,
  badUrls: 1,
  toSubmit: 198_720,
  submitMs: 198_720 * 3000,
};

const progress: Progress = {
  rows: 50,
  totalRows: 100,
  settled: 50,
  described: 30,
  resumed: 10,
  copied: 5,
  failed: 5,
  inFlight: 10,
  perSecond: 0.25,
  share: 1,
  etaMs: 200_000,
};

const receipt: Receipt = {
  run: 'r',
  manifest: 'm.csv',
  output: '/data/o.csv',
  failures: '/data/o.failed.csv',
  rows: 10,
  described: 4,
  resumed: 1,
  copied: 1,
  failed: 2,
  remaining: 2,
  extra: 0,
  twice: 0,
  submits: 7,
  polls: 9,
  inputTokens: 0,
  outputTokens: 0,
  reattached: 0,
  maybePaidTwice: 0,
  rescued: 0,
  seconds: 12.3,
  complete: true,
  balanced: true,
};

describe('the preview', () => {
  test('says how many rows and images there are, the column, the rate and the end', () => {
    const text = previewLines(preview, new Date(2026, 10, 17, 12, 10)).join('\n');
    expect(text).toContain(
      'm.csv: 200,100 rows, 199,000 images, 1,000 already described, 100 to copy, 1 without or with a bad URL',
    );
    expect(text).toContain('column "image", first http://h.test/1.jpg');
    const none = previewLines({ ...preview, firstUrl: '' }, new Date()).join('\n');
    expect(none).toContain('column "image", none that can be used\n');
    expect(text).toMatch(
      /198,720 images to submit, at most 20\/min: about 6\.9 days, until Tue 24 Nov \d\d:\d\d/,
    );
  });
  test('says which rows failed for good before', () => {
    const text = previewLines({ ...preview, failedBefore: 1200 }, new Date()).join('\n');
    expect(text).toContain('100 to copy, 1,200 failed for good before, 1 without or with a bad URL');
  });
  test('says that there is nothing to do', () => {
    expect(previewLines({ ...preview, toSubmit: 0 }, new Date()).join('\n')).toContain('nothing to submit');
  });
  test('says which keys come into no file', () => {
    const lines = previewLines({ ...preview, unknownKeys: new Set(['note', 'image.bytes']) }, new Date());
    const text = 'left out: keys that the first records lack, or that hold bytes (note, image.bytes)';
    expect(lines.join('\n')).toContain(text);
  });
  test('says when only the first records were counted', () => {
    expect(previewLines({ ...preview, sampled: true }, new Date()).join('\n')).toContain(
      '(of the first records)',
    );
  });
  test('shows no control characters of a manifest', () => {
    const lines = previewLines({ ...preview, urlColumn: 'a\u001b[2Jb\nc' }, new Date());
    expect(lines.join('|')).toContain('"a [2Jb c"');
  });
  test.each([
    [60_000, '12:01'],
    [86_400_000, 'Wed 12:00'],
    [8 * 86_400_000, 'Wed 25 Nov 12:00'],
  ])('tells the local time %d ms from now', (ms, text) => {
    expect(localEnd(ms, new Date(2026, 10, 17, 12, 0))).toBe(text);
  });
});

describe('the progress line', () => {
  test('shows bar, counts, in flight, rate and time left', () => {
    expect(progressLine(progress, 200)).toBe(
      '[############............] 50/100, 35 described, 10 resumed, 5 failed, 10 in flight, 15.0/min, 3 min left',
    );
  });
  test('shows a learned rate that is not the configured one', () => {
    expect(progressLine({ ...progress, share: 0.5 }, 200)).toContain('slowed to 50 % by the API');
  });
  test('shows no bar where the rows are not counted', () => {
    expect(progressLine({ ...progress, totalRows: undefined, etaMs: undefined }, 200)).toMatch(/^50 rows, /);
  });
  test('makes its bar smaller, or leaves it away, where there is no room for all of it', () => {
    const figures = '50/100, 35 described, 10 resumed, 5 failed, 10 in flight, 15.0/min, 3 min left';
    expect(progressLine(progress, 89)).toBe(`[####....] ${figures}`);
    expect(progressLine(progress, 79)).toBe(figures);
  });
  test('is never wider than the terminal', () => {
    expect(progressLine(progress, 40)).toHaveLength(40);
  });
});

describe('the account at the end', () => {
  const result = (changes: Partial<RunResult>): RunResult => ({
    preview,
    receipt,
    differences: [],
    stop: undefined,
    failedByCode: new Map([['http', 2]]),
    exitCode: 2,
    ...changes,
  });
  test('counts every row, names both files and how to go on', () => {
    const text = receiptLines(result({}), 'bulk-describe run m.csv').join('\n');
    expect(text).toContain('10 rows: 4 described, 1 resumed, 1 copied, 2 failed, 2 remaining');
    expect(text).toContain('/data/o.failed.csv (2 http)');
    expect(text).toContain('resume    bulk-describe run m.csv');
  });
  test('names the failures of earlier starts without codes, which it does not know', () => {
    const text = receiptLines(result({ receipt: { ...receipt, failed: 2 }, failedByCode: new Map() }), 'x');
    expect(text.find((line) => line.startsWith('failures'))).toMatch(/\.failed\.csv$/);
  });
  test('says what is left and why: by --limit, or since the manifest was not read to its end', () => {
    const limited = receiptLines(result({ receipt: { ...receipt, remaining: 20 } }), 'x').join('\n');
    expect(limited).toMatch(/^rest +20 rows not taken on by this run \(--limit\): the next one goes on$/m);
    const unread = { ...receipt, complete: false };
    const stop = { kind: 'interrupted', reason: 'interrupted' } as const;
    const interrupted = receiptLines(result({ receipt: unread, stop }), 'x').join('\n');
    expect(interrupted).toMatch(/^rest +the manifest was not read to its end: it may have more rows$/m);
    const done = receiptLines(result({ receipt: { ...receipt, remaining: 0 } }), 'x').join('\n');
    expect(done).not.toMatch(/^rest/m);
  });
  test.each([
    [['run', 'm.csv'], 'bulk-describe run m.csv'],
    [['run', 'm.csv', '--queue', 'redis://me@h'], 'bulk-describe run m.csv --queue redis://me@h'],
    [
      ['run', 'm.csv', '--queue=redis://:secret@h'],
      'bulk-describe run m.csv --queue=redis://h    (the password of --queue is left out here: put it in, or set QUEUE_URL)',
    ],
    [
      ['run', 'm.csv', '--ping', 'https://hc.test/secret', '--header=X-Key=secret', '--header', 'X-B=secret'],
      'bulk-describe run m.csv    (the secrets of --header and --ping are left out here: put them in)',
    ],
    [['run', 'm.csv', '--finish-by', '06:00'], 'bulk-describe run m.csv --finish-by 06:00'],
    [['run', 'm.csv', '--finish-by', '2026-01-31T06:00'], 'bulk-describe run m.csv'],
    [['run', '--finish-by=2026-01-31T06:00', 'm.csv'], 'bulk-describe run m.csv'],
    [
      ['run', '--ping=https://hc.test/secret', 'm.csv', '--header-file', 'h.txt'],
      'bulk-describe run m.csv --header-file h.txt    (the secrets of --ping are left out here: put them in)',
    ],
  ])(
    'says that the command to resume with has no password or secret, nor a date that will be over: %j',
    (args, command) => {
      expect(resumeCommand(args, 'm.csv')).toBe(command);
    },
  );
  test('says why it stopped, and what may have been paid twice', () => {
    const stopped = result({
      stop: { kind: 'down', reason: 'the API has not answered for 15 min' },
      receipt: { ...receipt, maybePaidTwice: 3 },
    });
    const text = receiptLines(stopped, 'x').join('\n');
    expect(text).toContain('stopped   the API has not answered for 15 min');
    expect(text).toContain('3 perhaps paid twice');
  });
  test('offers nothing to resume when all is done, or when only a changed manifest can help', () => {
    const done = result({
      receipt: { ...receipt, remaining: 0 },
      failedByCode: new Map([['invalid-url', 2]]),
    });
    expect(receiptLines(done, 'x').join('\n')).not.toMatch(/^resume/m);
  });
});

describe('the terminal', () => {
  function open(isTTY: boolean) {
    let text = '';
    const sink = new Writable({
      write(chunk: Buffer, _encoding, done) {
        text += chunk.toString();
        done();
      },
    });
    const stream = Object.assign(sink, { isTTY, columns: 200 });
    return { stream, text: () => text };
  }
  test('redraws progress in place, and keeps lines above it', () => {
    const { stream, text } = open(true);
    const terminal = new Terminal(stream, { quiet: false, progress: true });
    terminal.progress({ ...progress, trouble: 'x'.repeat(300) });
    terminal.say('a line');
    terminal.end();
    // Room for the `^C` of a Ctrl-C, which would break the line otherwise.
    const line = progressLine({ ...progress, trouble: 'x'.repeat(300) }, 197);
    expect(line).toHaveLength(197);
    const erase = '\r\u001b[2K';
    expect(text()).toBe(`${line}${erase}a line\n${line}${erase}`);
  });
  test('writes no control characters where it is no terminal', () => {
    const { stream, text } = open(false);
    const terminal = new Terminal(stream, { quiet: false, progress: true });
    terminal.phase('creating');
    terminal.progress(progress);
    terminal.end();
    expect(text()).toBe('creating\n');
  });
  test('shows warnings alone with --quiet', () => {
    const { stream, text } = open(false);
    const terminal = new Terminal(stream, { quiet: true, progress: true });
    terminal.say('a line');
    terminal.phase('creating');
    terminal.warn('a warning');
    expect(text()).toBe('a warning\n');
  });
});

test.each([
  ['plain.csv', 'plain.csv'],
  ['my file.csv', "'my file.csv'"],
  ["it's", `'it'\\''s'`],
])('quotes %s for a shell', (text, quoted) => {
  expect(shellQuote(text)).toBe(quoted);
});

test('cuts what is too long to print', () => {
  expect(printable('x'.repeat(300), 10)).toBe('xxxxxxxxx…');
});

test.each([
  [
    '{"level":40,"msg":"not kept","schedule":"nightly","error":"no room"}',
    'warn: not kept (schedule nightly, error no room)',
  ],
  ['{"level":50,"msg":"bad\\u001b[31m","jobs":["a","b"]}', 'error: bad [31m (jobs ["a","b"])'],
  ['{"level":30,"msg":"plain"}', 'info: plain'],
  ['{"odd":1}', '{"odd":1}'],
])('on a terminal the log record %s is a line for people', (record, line) => {
  expect(logText(`${record}\n`.trim())).toBe(line);
});

test.each([
  ['short', ['short']],
  ['    one two three four', ['    one two', '     three four']],
  ['speed     5/s, at most 9/s', ['speed     5/s,', '     at most', '     9/s']],
  ['  a-word-that-is-too-long for it', ['  a-word-that-is-too-long for it']],
  ['a b-word-that-is-too-long', ['a', '  b-word-that-is-too-long']],
])('%j is broken between words for a terminal of 15 columns', (line, lines) => {
  expect(wrapped(line, 15)).toEqual(lines);
});

test.each([
  ['redis://:p@ss/w@host:6380/2', 'redis://host:6380/2'],
  ['--queue=rediss://ada:pass@host', '--queue=rediss://ada@host'],
  ['redis://host', 'redis://host'],
  ['http://ada:pass@images.test/', 'http://ada:pass@images.test/'],
])('shows the argument %s as %s', (argument, shown) => {
  expect(withoutPassword(argument)).toBe(shown);
});
