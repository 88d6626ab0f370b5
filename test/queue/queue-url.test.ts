import { userInfo } from 'node:os';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/shared/errors.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';

const env = { HOME: '/home/ada' };

describe('a queue URL', () => {
  test.each([
    ['redis://localhost', 'redis://localhost:6379'],
    ['redis://localhost:6380/', 'redis://localhost:6380'],
    ['redis://localhost:6380/0', 'redis://localhost:6380'],
    ['redis://localhost:6380/12', 'redis://localhost:6380/12'],
    ['redis://:s3cret@cache.example.com:6379', 'redis://cache.example.com:6379'],
    ['rediss://ada:s3c%40ret@cache.example.com/2', 'rediss://ada@cache.example.com:6379/2'],
    ['redis://[::1]:6379', 'redis://[::1]:6379'],
  ])('%s is Redis, labelled %s', (url, label) => {
    expect(parseQueueUrl(url, env)).toEqual({ kind: 'redis', url, label });
  });

  test.each([
    ['embedded:', {}, '/home/ada/.local/state/bulk-describe'],
    ['embedded:', { XDG_STATE_HOME: '/var/state' }, '/var/state/bulk-describe'],
    ['embedded:', { XDG_STATE_HOME: 'not/absolute' }, '/home/ada/.local/state/bulk-describe'],
    ['embedded:/srv/queue', {}, '/srv/queue'],
    ['embedded:~/queue', {}, '/home/ada/queue'],
    ['embedded:queue/here', {}, resolve('queue/here')],
    ['embedded:./~x', {}, resolve('~x')],
    ['embedded:', { HOME: '' }, `${userInfo().homedir}/.local/state/bulk-describe`],
    ['embedded:', { HOME: 'ada', XDG_STATE_HOME: '/var/state' }, '/var/state/bulk-describe'],
    ['embedded:/srv/queue', { HOME: 'ada' }, '/srv/queue'],
  ])('%s with %o is the directory %s', (url, more, directory) => {
    expect(parseQueueUrl(url, { ...env, ...more })).toEqual({
      kind: 'embedded',
      directory,
      label: `embedded:${directory}`,
    });
  });

  test.each(['embedded:', 'embedded:~/queue'])('%s needs a home that is the same from everywhere', (url) => {
    const parse = () => parseQueueUrl(url, { HOME: 'ada' });
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(/^--queue: .* no home folder .*: set HOME, or name --queue embedded:<directory>$/);
  });

  test.each([
    '',
    'localhost:6379',
    'http://localhost',
    'redis://',
    'redis://:s3cret@',
    'redis://:s3cret@host/zero',
    'redis://:s3cret@host:port',
    'postgres://ada:s3cret@host/db',
    'embedded://tmp/queue',
    'memory:',
  ])('%s is refused with what is expected, and without repeating it', (url) => {
    const parse = () => parseQueueUrl(url, env);
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(/^--queue: .*expected redis:\/\//);
    expect(parse).not.toThrow(/s3cret/);
  });
});
