import { describe, expect, test } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { finishTime, parseFinishBy } from '../../src/run/finish-by.js';
import { UsageError } from '../../src/shared/errors.js';
import { manifestOf, Workspace } from '../helpers/workspace.js';

describe('--finish-by', () => {
  test.each([
    ['06:00', '2026-01-02T05:00:00Z', '2026-01-02T06:00:00Z', 'UTC'],
    ['06:00', '2026-01-02T06:00:00Z', '2026-01-03T06:00:00Z', 'UTC'],
    ['06:00', '2026-01-02T22:00:30Z', '2026-01-03T06:00:00Z', 'UTC'],
    ['06:00', '2026-01-02T22:00:00Z', '2026-01-03T05:00:00Z', 'Europe/Prague'],
    // Clocks go from 02:00 to 03:00, and back from 03:00 to 02:00.
    ['02:30', '2026-03-28T22:00:00Z', '2026-03-29T01:00:00Z', 'Europe/Prague'],
    ['06:00', '2026-03-28T22:00:00Z', '2026-03-29T04:00:00Z', 'Europe/Prague'],
    ['02:30', '2026-10-24T22:00:00Z', '2026-10-25T00:30:00Z', 'Europe/Prague'],
    ['2026-01-31T06:00:00.000Z', '2026-01-02T22:00:00Z', '2026-01-31T06:00:00Z', 'Europe/Prague'],
  ])('%s, seen at %s, is %s in %s', (finishBy, now, expected, zone) => {
    expect(new Date(finishTime(finishBy, Date.parse(now), zone))).toEqual(new Date(expected));
  });

  const now = Date.parse('2026-01-02T03:04:05Z');
  test.each([
    ['6:00', '06:00'],
    ['2026-01-31 06:00Z', '2026-01-31T06:00:00.000Z'],
    ['2026-01-31T06:00:30+01:00', '2026-01-31T05:00:30.000Z'],
  ])('reads %s as %s', (text, expected) => {
    expect(parseFinishBy(text, '--finish-by', now)).toBe(expected);
  });
  test.each([
    ['25:00', /^--finish-by 25:00: expected a time such as 06:00/],
    ['tomorrow', /expected a time/],
    ['2026-01-31T06:00:61Z', /expected a time/],
    ['2026-02-31T06:00Z', /expected a time/],
    ['2026-01-01T06:00Z', /that is over/],
  ])('refuses %s', (text, message) => {
    expect(() => parseFinishBy(text, '--finish-by', now)).toThrow(message);
  });

  test('is read alike in the library', async () => {
    const workspace = await Workspace.forTest(manifestOf(1));
    const plan = (finishBy: string) =>
      describeManifest({ manifest: workspace.at('m.csv'), finishBy, api: 'simulator', dryRun: true });
    expect((await plan('6:00')).preview.finishBy?.atMs).toBeGreaterThan(Date.now());
    await expect(plan('tomorrow')).rejects.toThrow(UsageError);
  });
});
