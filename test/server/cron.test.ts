import { expect, test } from 'vitest';
import { checkCron, nextTime } from '../../src/service/schedules.js';
import { checkScheduleName } from '../../src/service/schedules.js';

test.each(['0 2 * * *', '*/5 * * * *', '*/2 * * * * *', '0 2 * * MON-FRI', ' 0  2 1 * * '])(
  'takes "%s" for a pattern',
  (pattern) => {
    expect(() => checkCron(pattern, 'Europe/Prague')).not.toThrow();
  },
);

test.each([
  [
    '2 * *',
    /has 3 fields: expected minute, hour, day, month and weekday.*"0 2 \* \* \*" is every night at 2:00/,
  ],
  ['0 0 2 * * * *', /has 7 fields/],
  ['@daily', /has 1 field/],
  ['61 * * * *', /--cron "61 \* \* \* \*": .*0-59; "0 2 \* \* \*" is every night/],
  ['a b c d e', /--cron "a b c d e": /],
  ['0 0 31 2 *', /^--cron "0 0 31 2 \*" never comes: no month of it has such a day; "0 2/],
])('says what is wrong with the pattern "%s"', (pattern, message) => {
  expect(() => checkCron(pattern, 'UTC')).toThrow(message);
});

test.each(['Europe/Nowhere', 'Mars', '', '+02:00'])('says that %j is no time zone', (timeZone) => {
  expect(() => checkCron('0 2 * * *', timeZone)).toThrow(
    /--tz .*: expected the name of a time zone, such as/,
  );
});

test('comes at its time by the clocks of the zone, in summer and in winter', () => {
  const next = (after: string) =>
    new Date(nextTime('0 2 * * *', 'Europe/Prague', Date.parse(after)) ?? 0).toISOString();
  expect(next('2026-07-01T12:00:00Z')).toBe('2026-07-02T00:00:00.000Z');
  expect(next('2026-12-01T12:00:00Z')).toBe('2026-12-02T01:00:00.000Z');
});

test.each(['', 'a b', '-nightly', 'a:b', 'a/b', 'ü', 'x'.repeat(65)])('refuses %j for a name', (name) => {
  expect(() => checkScheduleName(name)).toThrow(/expected up to 64 letters, digits, dashes and underscores/);
});
