import { describe, expect, test } from 'vitest';
import { beginRequest, checkDatedOutput, localDate, otherDates } from '../../src/service/schedules.js';

describe('the date of a night', () => {
  test.each([
    ['2026-11-25T00:30:00Z', 'UTC', '2026-11-25'],
    ['2026-11-25T00:30:00Z', 'America/New_York', '2026-11-24'],
    ['2026-11-25T12:30:00Z', 'Pacific/Auckland', '2026-11-26'],
    ['2026-11-24T23:30:00Z', 'Europe/Prague', '2026-11-25'],
    // The night in which the clocks go forward, and the one in which 2:00 to 3:00 comes twice.
    ['2026-03-29T00:59:59Z', 'Europe/Prague', '2026-03-29'],
    ['2026-03-29T22:30:00Z', 'Europe/Prague', '2026-03-30'],
    ['2026-10-25T00:30:00Z', 'Europe/Prague', '2026-10-25'],
    ['2026-10-25T01:30:00Z', 'Europe/Prague', '2026-10-25'],
    ['2026-10-25T22:59:59Z', 'Europe/Prague', '2026-10-25'],
    ['2026-10-25T23:00:00Z', 'Europe/Prague', '2026-10-26'],
    // The end of a year, and of a February in a leap year.
    ['2026-12-31T23:30:00Z', 'Europe/Prague', '2027-01-01'],
    ['2026-12-31T23:30:00Z', 'America/Los_Angeles', '2026-12-31'],
    ['2028-02-28T23:30:00Z', 'Europe/Prague', '2028-02-29'],
    ['2026-06-01T11:00:00Z', 'Pacific/Kiritimati', '2026-06-02'],
    ['2026-06-01T05:45:00Z', 'Asia/Kathmandu', '2026-06-01'],
    // Where the year is another one, the date is still ours.
    ['2026-06-01T05:45:00Z', 'Asia/Bangkok', '2026-06-01'],
  ])('%s in %s is %s', (at, timeZone, date) => {
    expect(localDate(Date.parse(at), timeZone)).toBe(date);
  });
});

describe('a dated output', () => {
  test('finds the files of other dates, in their order, and nothing else', () => {
    const names = [
      'prompts-2026-11-25.csv',
      'prompts-2026-11-24.csv',
      'prompts-2025-12-31.csv',
      'prompts-2026-11-26.csv',
      'prompts-2026-11-24.csv.run',
      'prompts-2026-11-24.failed.csv',
      'prompts-2026-11-24.csv.lock',
      'prompts-2026-13-01.csv',
      'prompts-2026-02-30.csv',
      'prompts-.csv',
      'prompts-{date}.csv',
      'prompts-12026-11-24.csv',
      'xprompts-2026-11-24.csv',
      'pr.csv',
    ];
    expect(otherDates('out/prompts-{date}.csv', '/root/out/prompts-2026-11-25.csv', names)).toEqual([
      'prompts-2025-12-31.csv',
      'prompts-2026-11-24.csv',
      'prompts-2026-11-26.csv',
    ]);
    expect(otherDates('{date}.csv', '2026-11-25.csv', ['2026-11-24.csv', 'a.csv'])).toEqual([
      '2026-11-24.csv',
    ]);
  });

  test.each(['{date}/out.csv', 'a/{date}-{date}.csv', '{date}/{date}.csv'])('may not be %s', (output) => {
    expect(() => checkDatedOutput(output)).toThrow(/can be there once, in the file's name/);
  });

  test('keeps the date that its run began with', () => {
    const request = {
      manifest: 'm.csv',
      output: 'out-{date}.csv',
      schedule: 'nightly',
      timeZone: 'Europe/Prague',
    };
    const beforeMidnight = Date.parse('2026-11-25T22:59:59Z');
    const begun = beginRequest(request, beforeMidnight);
    expect(begun).toEqual({
      ...request,
      output: 'out-2026-11-25.csv',
      outputPattern: 'out-{date}.csv',
      begunAt: beforeMidnight,
    });
    expect(beginRequest(begun, beforeMidnight + 3_600_000)).toBe(begun);
  });
});
