import { writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { runCommand } from '../helpers/cli.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

const JSON_FILE = 'bulk-describe.config.json';
const YAML_FILE = 'bulk-describe.config.yaml';

let workspace: Workspace;
let simulator: Simulator;

beforeAll(async () => {
  simulator = await startSimulator();
});
afterAll(() => simulator.close());
beforeEach(async () => {
  workspace = await Workspace.create();
  await workspace.write('m.csv', manifestOf(3));
});
afterEach(() => workspace.remove());

function cli(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return runCommand(args, { cwd: workspace.path, env: { XDG_STATE_HOME: workspace.at('state'), ...env } });
}

describe('a flag wins over the environment, that over the file, and there the section of the command', () => {
  const file = 'api: simulator\nrate: 5/s\nmax-in-flight: 3\nrun:\n  rate: 7/s\nworker:\n  rate: 8/s\n';
  test.each<[string, string[], NodeJS.ProcessEnv, string]>([
    ['the section', [], {}, '7/s'],
    ['the environment', [], { DESCRIBE_RATE: '9/s' }, '9/s'],
    ['an empty variable, which counts for nothing', [], { DESCRIBE_RATE: '' }, '7/s'],
    ['the flag', ['--rate', '11/s'], { DESCRIBE_RATE: '9/s' }, '11/s'],
    ['no file', ['--config', '/dev/null', '--api', 'simulator'], {}, '20/min'],
  ])('%s', async (_name, args, env, rate) => {
    await workspace.write(YAML_FILE, file);
    const { code, stdout, stderr } = await cli(['run', 'm.csv', '--dry-run', ...args], env);
    expect([code, stderr + stdout]).toEqual([0, expect.stringContaining(`at most ${rate}`)]);
  });
});

test('a run is configured by a file in another folder, in either format', async () => {
  const options = {
    $schema: 'bulk-describe.schema.json',
    api: simulator.url,
    rate: '50/s',
    keep: ['image', 'id'],
    accept: 'http, rejected',
    'no-progress': true,
    usage: false,
    run: { 'max-in-flight': 4, 'prompts-as': 'rows' },
  };
  await workspace.write('nightly.json', JSON.stringify(options));
  await workspace.write(
    'nightly.yaml',
    `api: ${simulator.url}\nrate: 50/s\nkeep: [image, id]\naccept: http, rejected\nno-progress: true
usage: false\nrun:\n  max-in-flight: 4\n  prompts-as: rows\n`,
  );
  const start = (config: string, ...args: string[]) =>
    cli(['run', 'm.csv', '-o', 'o.csv', '--config', config, ...args], { DESCRIBE_API_TOKEN: 'any' });
  const dry = await start('nightly.json', '--dry-run');
  const { code, stdout } = await start('nightly.yaml');
  expect([code, dry.code, stdout]).toEqual([0, 0, expect.stringContaining('3 rows: 3 described')]);
  expect(dry.stdout + dry.stderr).toContain('at most 50/s');
  const lines = (await workspace.read('o.csv')).split('\n');
  expect(lines[0]).toBe('id,image,prompt_number,prompt,message_id,described_at');
  expect(lines.filter((line) => /^\d,http/.test(line))).toHaveLength(3 * 4);
});

test('the simulated API has its options from its own section alone', async () => {
  await workspace.write(YAML_FILE, 'max-in-flight: 4\nsimulate:\n  latency: 9s\n');
  const { code, stdout } = await cli(['config', 'simulate']);
  expect([code, stdout]).toEqual([0, expect.stringMatching(/^latency +9s +.*simulate\.latency$/m)]);
  expect(stdout).not.toContain('max-in-flight');
});

test('values of YAML are text as they are behind a flag: 007, yes and dates stay what they are', async () => {
  await workspace.write('m.csv', 'yes,007\n1,http://images.test/1.jpg\n');
  await workspace.write(YAML_FILE, 'api: simulator\nurl-column: 007\nkey-column: yes\n');
  const { code, stdout, stderr } = await cli(['run', 'm.csv', '--dry-run']);
  expect([code, stderr + stdout]).toEqual([0, expect.stringContaining('column "007"')]);
});

describe('a file is refused with one line that names file and key, before anything is paid', () => {
  test.each<[string, string, string, string]>([
    ['an unknown key, with the nearest', YAML_FILE, 'rat: 1/s', 'rat is not known: did you mean rate?'],
    ['one of a section', YAML_FILE, 'run:\n  limt: 1', 'run.limt is not known: did you mean limit?'],
    ['one of another command', JSON_FILE, '{"serve":{"limit":1}}', 'serve.limit is not known'],
    ['an unknown command', JSON_FILE, '{"schedule ad":{}}', 'did you mean schedule add?'],
    ['a wrong value, as its flag', YAML_FILE, 'rate: 10/x', 'rate 10/x: expected a rate such as'],
    ['what is wrong with others', JSON_FILE, '{"dialect":"x"}', '--dialect x: expected one of'],
    ['a missing value', YAML_FILE, 'rate:', 'rate needs a value'],
    ['null', JSON_FILE, '{"rate":null}', 'rate needs a value'],
    ['null in place of an object', JSON_FILE, 'null', 'expected a line for each option'],
    ['an option that needs another', YAML_FILE, 'public-url: http://h.test', 'needs --serve-images'],
    ['a list where one value is taken', YAML_FILE, 'rate: [1/s]', 'rate: expected one value, not a list'],
    ['a comma in a list', YAML_FILE, 'keep: ["a,b"]', 'keep: "a,b" cannot be an item of a list'],
    ['a list in a list', YAML_FILE, 'keep: [[a]]', 'keep: expected text or a number'],
    ['a number that is rounded', JSON_FILE, '{"account":12345678901234567890}', 'in quotes'],
    ['an object', JSON_FILE, '{"rate":{}}', 'rate: expected text or a number'],
    ['no section', JSON_FILE, '{"run":true}', 'run: expected options of `run` below it'],
    ['no yes or no', JSON_FILE, '{"usage":"yes"}', 'usage: expected true or false'],
    ['a token', YAML_FILE, 'token: x', 'use token-file, or DESCRIBE_API_TOKEN'],
    ['a token file that is not there', YAML_FILE, 'token-file: no', 'token-file no cannot be read'],
    ['an output', YAML_FILE, 'run:\n  output: x.csv', 'give it as --output, not in a file'],
    ['a dry run', YAML_FILE, 'dry-run: true', 'give it as --dry-run, not in a file'],
    ['no object', JSON_FILE, '[]', 'expected a line for each option'],
    ['broken JSON', JSON_FILE, '{\n"rate": "1/s",\n}', 'line 3: Expected'],
    ['broken YAML', YAML_FILE, 'api: simulator\nrate: [1', 'line 2: '],
    ['a key that is there twice', YAML_FILE, 'rate: 1/s\nrate: 2/s', 'line 2: Map keys must be unique'],
    ['one of JSON', JSON_FILE, '{"rate":"1/s",\n"rate":"2/s"}', 'line 2: Map keys must be unique'],
    [
      'one of a section of JSON',
      JSON_FILE,
      '{"run":{"limit":1,"limit":2}}',
      'line 1: Map keys must be unique',
    ],
    ['a tag', YAML_FILE, 'rate: !!binary aGk=', 'line 1: Unresolved tag'],
    ['two documents', YAML_FILE, 'rate: 1/s\n---\nrate: 2/s', 'line 2: expected one document'],
    ['a list as a key', YAML_FILE, '? [a]\n: b', 'line 1: expected a name as a key'],
    ['an alias without end', YAML_FILE, 'keep: &a [*a]', 'keep: expected text'],
  ])('%s', async (_name, file, content, message) => {
    await workspace.write(file, content);
    const before = await workspace.files();
    const { code, stdout, stderr } = await cli(['run', 'm.csv', '--dry-run']);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^bulk-describe: [^\n]+\n$/);
    expect(stderr).toContain(message);
    expect(stderr).toContain(file);
    expect(await workspace.files()).toEqual(before);
  });
  test('two files, a file that is none, and one that leads nowhere', async () => {
    await workspace.write(JSON_FILE, '{}');
    await workspace.write(YAML_FILE, '');
    const two = await cli(['run', 'm.csv']);
    expect(two.stderr).toContain(`${JSON_FILE} and ${YAML_FILE} are both in this folder: keep one of them`);
    const none = await cli(['run', 'm.csv', '--config', 'nowhere.yaml']);
    expect(none.stderr).toContain('--config nowhere.yaml cannot be read: no such file');
    const folder = await cli(['run', 'm.csv', '--config', '.']);
    expect(folder.stderr).toContain('--config . cannot be read: it is a folder');
    await writeFile(workspace.at('large.yaml'), ' '.repeat(70_000));
    const large = await cli(['run', 'm.csv', '--config', 'large.yaml']);
    expect(large.stderr).toContain('--config large.yaml is larger than 64 KB');
    expect([two.code, none.code, folder.code, large.code]).toEqual([1, 1, 1, 1]);
  });
});

test('every command takes the file: what is wrong in it is refused before Redis is asked', async () => {
  await workspace.write('x.yaml', 'schedule add:\n  crn: x\n');
  for (const args of [
    ['status'],
    ['serve'],
    ['schedule', 'list'],
    ['simulate'],
    ['verify', 'm.csv', 'o.csv'],
  ]) {
    const { code, stderr } = await cli([...args, '--config', 'x.yaml']);
    expect([code, stderr]).toEqual([
      1,
      'bulk-describe: x.yaml: schedule add.crn is not known: did you mean cron?\n',
    ]);
  }
});

test('a request has from the top of a file what the server does not have itself, and its section whole', async () => {
  const enqueue = (content: string) =>
    workspace
      .write(YAML_FILE, `queue: redis://127.0.0.1:1\n${content}`)
      .then(() => cli(['enqueue', 'm.csv']));
  expect((await enqueue('rate: 10/x\n')).stderr).toContain('no Redis at redis://127.0.0.1:1');
  expect((await enqueue('max-cost: much\n')).stderr).toContain(`${YAML_FILE}: max-cost much: expected`);
  expect((await enqueue('enqueue:\n  rate: 10/x\n')).stderr).toContain('enqueue.rate 10/x: expected');
});

test('plan has what run has from its section, and what its own says before it', async () => {
  await workspace.write(
    YAML_FILE,
    'plan:\n  rate: 3/s\nrun:\n  rate: 4/s\n  max-in-flight: 6\nmax-in-flight: 7\n',
  );
  const { stdout } = await cli(['config', 'plan']);
  expect(stdout).toMatch(/^rate +3\/s +bulk-describe\.config\.yaml: plan\.rate$/m);
  expect(stdout).toMatch(/^max-in-flight +6 +bulk-describe\.config\.yaml: run\.max-in-flight$/m);
});

describe('config shows what holds, and where it is from', () => {
  const env = { DESCRIBE_API_TOKEN: 'hunter2', DESCRIBE_RATE: '3/s', QUEUE_URL: '' };
  beforeEach(() =>
    workspace.write(
      YAML_FILE,
      'queue: redis://ada:hunter2@h.test:6379\nmax-in-flight: 5\nno-header: true\nusage: false\nheader: X-Key=hunter2\n' +
        'ping: https://hc.test/hunter2\nrate: 9/s\nschedule add:\n  rate: 4/s\n',
    ),
  );
  test('as a table, without secrets', async () => {
    const { code, stdout, stderr } = await cli(['config'], env);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^file +bulk-describe\.config\.yaml, for `run`$/m);
    expect(stdout).toMatch(/^rate +3\/s +DESCRIBE_RATE$/m);
    expect(stdout).toMatch(/^max-in-flight +5 +bulk-describe\.config\.yaml: max-in-flight$/m);
    expect(stdout).toMatch(/^no-header +true +bulk-describe\.config\.yaml: no-header$/m);
    expect(stdout).toMatch(/^queue +redis:\/\/ada:\*\*\*@h\.test:6379 +bulk-describe\.config\.yaml: queue$/m);
    expect(stdout).toMatch(/^token-file +\(hidden\) +DESCRIBE_API_TOKEN$/m);
    expect(stdout).toMatch(/^poll-rate +10\/s +default$/m);
    expect(stdout).not.toContain('hunter2');
    expect(stdout).not.toMatch(/^(usage|limit|dry-run|config)/m);
  });
  test('as JSON, of the command that is named', async () => {
    const { code, stdout } = await cli(['config', 'schedule', 'add', '--json'], env);
    expect(code).toBe(0);
    const shown: unknown = JSON.parse(stdout);
    expect(shown).toMatchObject({
      command: 'schedule add',
      file: YAML_FILE,
      options: {
        rate: { value: '4/s', from: 'file', place: `${YAML_FILE}: schedule add.rate` },
        'max-in-flight': { value: "the server's", from: 'default', place: null },
        limit: { value: null, from: null, place: null },
      },
    });
    expect(stdout).not.toContain('hunter2');
  });
  test('or refuses what the command would refuse', async () => {
    expect((await cli(['config', 'rn'])).stderr).toContain('config: rn is no command: did you mean run?');
    await workspace.write('x.yaml', 'worker:\n  rate: 9/x\n');
    const { code, stderr } = await cli(['config', 'worker', '--config', 'x.yaml']);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^bulk-describe: x\.yaml: worker\.rate 9\/x: exp/),
    ]);
    await workspace.write('y.yaml', 'simulate:\n  fail: often=1\n');
    const often = await cli(['config', 'simulate', '--config', 'y.yaml']);
    expect(often.stderr).toContain('simulate.fail often=1: expected <kind>=<0 to 1>');
    expect((await cli(['config', '--config', '/dev/null'])).code).toBe(0);
  });
});
