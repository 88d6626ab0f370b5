import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type CliOptions, runCommand } from '../helpers/cli.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

let workspace: Workspace;
let simulator: Simulator;

beforeAll(async () => {
  simulator = await startSimulator();
});
afterAll(() => simulator.close());
beforeEach(async () => {
  workspace = await Workspace.create();
});
afterEach(() => workspace.remove());

/** Runs a command that has to be refused: one line, no stack, no file touched, nothing paid. */
async function refuse(args: readonly string[], options: CliOptions = {}) {
  const files = await workspace.files();
  const before = simulator.stats().submits;
  const env = { XDG_STATE_HOME: workspace.at('state'), ...options.env };
  const end = await runCommand(args, { ...options, cwd: workspace.path, env });
  expect(end.stderr).toMatch(/^bulk-describe: [^\n]+\n$/);
  expect(end.stderr).not.toMatch(/\n {4}at |defect/);
  expect(end.stdout).toBe('');
  expect(await workspace.files()).toEqual(files);
  expect(simulator.stats().submits).toBe(before);
  return { code: end.code, line: end.stderr };
}

describe('before the first submit, run refuses', () => {
  const api = () => ['--api', simulator.url];
  const env = { DESCRIBE_API_TOKEN: 'secret-token' };

  test.each<[string, string[], RegExp]>([
    [
      'an unknown flag, with the nearest known one',
      ['--rat', '5/s'],
      /unknown flag --rat: did you mean --rate\?/,
    ],
    ['a token as an argument', ['--token', 'x'], /--token-file <path> or DESCRIBE_API_TOKEN/],
    ['a flag without its value', ['--limit'], /--limit needs a value/],
    ['a flag whose value was forgotten', ['-o', '--dry-run'], /--output needs a value/],
    [
      'a flag whose value was forgotten before one that has one',
      ['--price', '--rate', '1/s'],
      /: --price needs a value$/m,
    ],
    ['a forgotten value that is the flag itself', ['--rate', '--rate', '1/s'], /: --rate needs a value$/m],
    [
      'an output that looks like an image',
      ['-o', 'out.jpg'],
      /out\.jpg would hold CSV: end its name in \.csv, \.tsv, \.jsonl or \.parquet/,
    ],
    [
      'an output that a run to Parquet would take for its working file',
      ['-o', 'out.parquet.jsonl'],
      /out\.parquet\.jsonl has the name of the working file of \S+out\.parquet: name another one with -o/,
    ],
    ['a flag that takes no value', ['--json=yes'], /--json takes no value/],
    ['a flag that is given twice', ['--limit', '1', '--limit', '2'], /--limit is given twice/],
    ['a wrong rate', ['--rate', 'fast'], /--rate fast: expected a rate such as/],
    ['a wrong number', ['--max-in-flight', '0'], /--max-in-flight 0: expected a whole number of at least 1/],
    ['a wrong duration', ['--deadline', 'soon'], /--deadline soon: expected a duration/],
    ['a wrong code', ['--accept', 'nonsense'], /--accept nonsense: expected codes among invalid-url/],
    ['a wrong percentage', ['--stop-failing', '120'], /--stop-failing 120: expected a percentage/],
    ['a wrong API', ['--api', 'ftp://x'], /--api: expected an http\(s\) URL/],
    [
      'an unknown dialect, with the nearest one',
      ['--dialect', 'imaginpro'],
      /--dialect imaginpro: did you mean imaginepro\?/,
    ],
    ['a dialect like none', ['--dialect', 'x'], /--dialect x: expected one of thenextleg, imaginepro/],
    ['a wrong way to submit', ['--submit-method', 'put'], /--submit-method put: expected post or get/],
    [
      'a GET form that the dialect does not have',
      ['--submit-method', 'get', '--dialect', 'legnext'],
      /--submit-method get: the legnext dialect has no GET form/,
    ],
    [
      'an expiry that the dialect does not have',
      ['--expire-after', '5m', '--dialect', 'openai', '--model', 'm'],
      /--expire-after: the openai dialect has no expiry of messages/,
    ],
    ['an expiry of half a minute', ['--expire-after', '30s'], /--expire-after 0\.5m: .*whole minutes/],
    [
      'a webhook URL with a password, without showing it',
      ['--webhook-url', 'http://u:hunter2@h.test/'],
      /--webhook-url: expected an http\(s\) URL without user name, password(?!.*hunter2)/,
    ],
    [
      'a webhook URL that nobody receives for, with the embedded queue',
      ['--webhook-url', 'http://h.test', '--queue', 'embedded:state/queue'],
      /--webhook-url needs --webhook-listen <host:port> too with the embedded queue/,
    ],
    [
      'webhooks of a dialect that has none',
      [
        '--webhook-url',
        'http://h.test',
        '--webhook-listen',
        '127.0.0.1:0',
        '--dialect',
        'openai',
        '--model',
        'm',
      ],
      /--webhook-listen: the dialect openai has no webhooks/,
    ],
    ['openai without a model', ['--dialect', 'openai'], /needs a model: name it with --model <name>/],
    ['a model that means nothing', ['--model', 'm'], /--model: the thenextleg dialect has no choice/],
    [
      'a prompt file that is not there',
      ['--dialect', 'openai', '--model', 'm', '--prompt-file', 'no.txt'],
      /--prompt-file no\.txt cannot be read/,
    ],
    ['a wrong number of answers', ['--choices', '3'], /--choices 3: expected 1 .* or 4/],
    ['a wrong queue', ['--queue', 'amqp://x'], /expected redis:/],
    ['a wrong account', ['--account', 'a b'], /--account a b: expected/],
    ['a second manifest without an output', ['other.csv'], /several manifests are run as one: say with -o/],
    ['a URL column that is not there', ['--url-column', 'imag'], /imag.*image/],
    ['a key column that is not there', ['--key-column', 'di'], /di.*id/],
    ['a base URL that is none', ['--base-url', 'images'], /--base-url images/],
    [
      'a token file without an end',
      ['--token-file', '/dev/zero'],
      /--token-file \/dev\/zero is larger than 64 KB/,
    ],
    ['a token file that is not there', ['--token-file', 'nowhere'], /--token-file nowhere cannot be read/],
  ])('%s', async (_name, args, message) => {
    await workspace.write('m.csv', manifestOf(3));
    const apiFlags = args.includes('--api') ? [] : api();
    const { code, line } = await refuse(['run', 'm.csv', ...apiFlags, ...args], { env });
    expect(code).toBe(1);
    expect(line).toMatch(message);
  });

  test.each<[string, string, string | Buffer, RegExp]>([
    ['an empty manifest', 'm.csv', '', /m\.csv.*empty/],
    ['a manifest with a header alone', 'm.csv', 'id,image\n', /m\.csv/],
    ['duplicate column names', 'm.csv', 'id,id\n1,http://h/1.jpg\n', /id/],
    ['a column named like one of ours', 'm.csv', 'image,prompt_1\nhttp://h/1.jpg,x\n', /prompt_1/],
    ['no column with URLs', 'm.csv', 'a,b\n1,2\n', /--url-column/],
    [
      'several columns with URLs',
      'm.csv',
      'a,b\nhttp://h/1,http://h/2\n',
      /--url-column <name>: a \(http:\/\/h\/1\), b \(http:\/\/h\/2\)/,
    ],
    ['a name that tells no format', 'm.xlsx', 'id,image\n', /--format/],
    ['broken gzip', 'm.csv.gz', gzipSync(manifestOf(99)).subarray(0, 5), /m\.csv\.gz/],
    ['something binary', 'm.csv', Buffer.from([0x50, 0x4b, 3, 4, 0, 0, 0xff, 0xfe]), /m\.csv/],
  ])('%s', async (_name, file, content, message) => {
    await workspace.write(file, content);
    const { code, line } = await refuse(['run', file, ...api()], { env });
    expect(code).toBe(1);
    expect(line).toMatch(message);
  });

  test('a manifest that is not there', async () => {
    const { code, line } = await refuse(['run', 'nowhere.csv', ...api()], { env });
    expect([code, line]).toEqual([1, expect.stringContaining('nowhere.csv')]);
  });

  test('to run without a token, and says how to give one', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const { code, line } = await refuse(['run', 'm.csv', ...api()]);
    expect(code).toBe(1);
    expect(line).toMatch(/no token.*DESCRIBE_API_TOKEN.*--token-file.*--api simulator/);
  });

  test('stdin without a format, or without an output', async () => {
    const args = ['run', '-', ...api()];
    expect((await refuse([...args, '-o', 'o.csv'], { env, input: manifestOf(1) })).line).toMatch(/--format/);
    expect((await refuse([...args, '--format', 'csv'], { env, input: manifestOf(1) })).line).toMatch(/-o/);
  });

  test('an output whose columns do not fit', async () => {
    await workspace.write('m.csv', manifestOf(3));
    await workspace.write('o.csv', 'id,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at\n');
    const { code, line } = await refuse(['run', 'm.csv', '-o', 'o.csv', ...api()], { env });
    expect(code).toBe(1);
    expect(line).toMatch(/o\.csv.*image.*--new-columns/);
  });

  test('an output that is the manifest', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const { code, line } = await refuse(['run', 'm.csv', '-o', './m.csv', ...api()], { env });
    expect([code, line]).toEqual([1, expect.stringContaining('both the manifest')]);
  });

  test("an output with a simulator's prompts when the API is another", async () => {
    await workspace.write('m.csv', manifestOf(1));
    await workspace.write('o.csv', outputOf(['sim-1']));
    const { code, line } = await refuse(
      ['run', 'm.csv', '-o', 'o.csv', '--api', 'https://api.example.org/v2'],
      { env },
    );
    expect([code, line]).toEqual([1, expect.stringContaining('simulator')]);
  });

  test('an output that hardly matches, and says what to do and what it would cost', async () => {
    await workspace.write('m.csv', manifestOf(5, 'http://new-host.test'));
    await workspace.write('o.csv', outputOf(['m1', 'm2', 'm3', 'm4']));
    for (const command of [['run'], ['run', '--dry-run'], ['plan']]) {
      const { code, line } = await refuse([...command, 'm.csv', '-o', 'o.csv', ...api()], { env });
      expect(code).toBe(1);
      expect(line).toMatch(/0 of the 4 rows.*--key-column.*--pay-again 5/);
    }
  });

  test('an output in a folder that does not exist', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const { code, line } = await refuse(['run', 'm.csv', '-o', 'nowhere/o.csv', ...api()], { env });
    expect([code, line]).toEqual([1, expect.stringMatching(/folder .*nowhere does not exist: make it/)]);
    const dry = await refuse(['run', 'm.csv', '-o', 'nowhere/o.csv', '--dry-run', ...api()], { env });
    expect([dry.code, dry.line]).toEqual([code, line]);
  });

  test.each(['o.json', 'o.csv.gz'])(
    'an output whose name promises another format than CSV: %s',
    async (output) => {
      await workspace.write('m.csv', manifestOf(3));
      const { code, line } = await refuse(['run', 'm.csv', '-o', output, ...api()], { env });
      expect([code, line]).toEqual([1, expect.stringContaining('would hold CSV')]);
    },
  );

  test('an embedded queue that nobody would work for', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const { code, line } = await refuse(['run', 'm.csv', '--no-work', ...api()], { env });
    expect([code, line]).toEqual([1, expect.stringContaining('--no-work needs --queue redis://')]);
  });

  test('an embedded queue in a directory that cannot be made', async () => {
    await workspace.write('m.csv', manifestOf(3));
    await workspace.write('file', '');
    for (const directory of [workspace.at('file/queue'), '/proc/bulk-describe/queue']) {
      const queue = ['--queue', `embedded:${directory}`];
      const { code, line } = await refuse(['run', 'm.csv', ...api(), ...queue], { env });
      expect([code, line]).toEqual([1, expect.stringContaining('directory cannot be made')]);
    }
  });

  test('a wrong value of a variable, by the name of the variable', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const wrong = { ...env, DESCRIBE_MAX_IN_FLIGHT: 'many' };
    expect((await refuse(['run', 'm.csv', ...api()], { env: wrong })).line).toMatch(
      /DESCRIBE_MAX_IN_FLIGHT many: expected/,
    );
    const elsewhere = { ...env, QUEUE_URL: 'localhost:6379' };
    expect((await refuse(['run', 'm.csv', ...api()], { env: elsewhere })).line).toMatch(
      /--queue.*\(--queue is from QUEUE_URL\)$/m,
    );
  });
});

describe('when Redis is not there, the embedded queue is a way out for a run that needs nobody else, and for no other', () => {
  test.each<[string, boolean]>([
    ['run m.csv', true],
    ['run m.csv --no-work', false],
    ['worker', false],
    ['serve', false],
    ['serve --work', false],
    ['enqueue m.csv -o out.csv', false],
    ['status', false],
    ['status --watch', false],
    ['retry out.csv', false],
    ['cancel out.csv', false],
    ['schedule add nightly m.csv -o out.csv --cron 0_2_*_*_*', false],
    ['schedule list', false],
    ['schedule run nightly', false],
    ['schedule remove nightly', false],
    ['dashboard', false],
    ['webhook', false],
  ])('%s: %j', async (command, canBeEmbedded) => {
    await workspace.write('m.csv', manifestOf(3));
    const env = {
      DESCRIBE_API_TOKEN: 'any',
      DESCRIBE_API_URL: simulator.url,
      QUEUE_URL: 'redis://:hidden@127.0.0.1:1',
      DESCRIBE_WEBHOOK_SECRET: 'a-secret-of-some-length',
    };
    const args = command.split(' ').map((arg) => arg.replaceAll('_', ' '));
    const { code, line } = await refuse(args, { env });
    const wayOut = canBeEmbedded
      ? 'or leave --queue (QUEUE_URL) away to use the embedded queue'
      : 'or name another with --queue or QUEUE_URL';
    expect([code, line]).toEqual([
      1,
      `bulk-describe: no Redis at redis://127.0.0.1:1 (ECONNREFUSED): start one with \`docker compose up -d redis\`, ${wayOut}\n`,
    ]);
  });
});

test.each([
  [['rn'], /unknown command rn: did you mean `run`\?/],
  [['run'], /run needs a manifest/],
  [['verify', 'only-one.csv'], /verify needs a manifest and an output/],
  [['simulate', '--latency', 'long'], /--latency long: expected a duration/],
  [['simulate', '--fail', 'often=1'], /--fail often=1: expected/],
  [['webhook', '--webhook-listen', '8787'], /--webhook-listen 8787: expected <host>:<port>/],
  [['webhook', '--dialect', 'openai'], /^bulk-describe: webhook: the dialect openai has no webhooks/],
  [['webhook', '--show-url', '--webhook-url', 'x'], /--webhook-url: expected an http\(s\) URL without/],
  [['serve', '--webhook-url', 'http://h.example/x'], /--webhook-url is for workers: give serve --work/],
  [['serve', '--webhook-listen', '127.0.0.1:0'], /--webhook-listen needs --webhook-url <url>/],
  [['serve', '--webhook-secret-file', 'x'], /--webhook-secret-file x cannot be read/],
])('%j is refused with one line', async (args, message) => {
  const { code, line } = await refuse(args);
  expect(code).toBe(1);
  expect(line).toMatch(message);
});

test('simulate refuses a port that is taken, and a journal that cannot be written', async () => {
  const taken = await refuse(['simulate', '--port', String(simulator.port)]);
  expect([taken.code, taken.line]).toEqual([1, expect.stringMatching(/--port \d+ is in use: name another/)]);
  const journal = await refuse(['simulate', '--journal', 'nowhere/journal']);
  expect([journal.code, journal.line]).toEqual([1, expect.stringContaining('nowhere/journal')]);
});

function outputOf(messageIds: readonly string[]): string {
  const header = 'id,image,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at\n';
  return messageIds.reduce(
    (text, id, index) =>
      `${text}${index + 1},http://images.test/${index + 1}.jpg,a,b,c,d,${id},2026-01-01T00:00:00.000Z\n`,
    header,
  );
}

test.each([
  [['run', '']],
  [['verify', '', 'out.csv']],
  [['enqueue', '', '-o', 'x.csv']],
  [['status', '']],
  [['cancel', '']],
  [['retry', '']],
  [['schedule', 'add', '', '', '-o', 'x.csv', '--cron', '0 2 * * *']],
  [['schedule', 'run', '']],
  [['schedule', 'remove', '']],
])('an argument that is empty is refused as such: %j', async (args) => {
  const { code, line } = await refuse(args, { env: { QUEUE_URL: 'redis://127.0.0.1:1' } });
  expect(code).toBe(1);
  expect(line).toMatch(/an argument of \w+ is empty/);
});
