import { describe, expect, test } from 'vitest';
import { findTitleColumn } from '../../src/producer/columns.js';
import { toRow } from '../../src/producer/row-reader.js';
import { UsageError } from '../../src/shared/errors.js';

const URL = 'http://images.test/a.jpg';

function recordOf(cells: readonly string[]) {
  return { number: 1, line: 2, cells };
}

describe('the column of titles', () => {
  test.each([
    [['id', 'image', 'Title'], ['1', URL, 'A Boat'], 'Title'],
    [['name', 'image', 'title'], ['x', URL, 'A Boat'], 'title'],
    [['Product-Name', 'image'], ['A Boat', URL], 'Product-Name'],
    [['title', 'name', 'image'], ['', 'A Boat', URL], 'name'],
    [['title', 'caption', 'image'], ['http://a.test/x', 'A Boat', URL], 'caption'],
    [['id', 'image', 'artist'], ['1', URL, 'A'], undefined],
    [['title'], [URL], undefined],
  ])('of %j with %j is %s', (columns, cells, expected) => {
    const found = findTitleColumn(columns, [recordOf(cells)], undefined, [columns.indexOf('image')]);
    expect(found && columns[found.index]).toBe(expected);
  });

  test('is the one that is named, also in objects, and one that does not exist is refused', () => {
    const columns = ['image', 'about'];
    const sample = [recordOf([URL, '{"en":"A Boat"}'])];
    const titleColumn = findTitleColumn(columns, sample, 'about.en', [0]);
    expect(
      toRow(recordOf([URL, '{"en":"A Boat"}']), { urlColumn: { index: 0, path: [] }, titleColumn }).title,
    ).toBe('A Boat');
    expect(() => findTitleColumn(columns, sample, 'abut', [0])).toThrow(UsageError);
    expect(() => findTitleColumn(columns, sample, 'abut', [0])).toThrow(/--title-column abut: .*about/);
  });

  test.each([
    ['  A\n\tBoat\u0000 ', 'A Boat'],
    ['x'.repeat(500), `${'x'.repeat(199)}…`],
    [`${'x'.repeat(198)}👍 and more`, `${'x'.repeat(198)} …`],
    [' \u0000', undefined],
    ['<b>"\u202e', '<b>"\u202e'],
  ])('holds %j, which goes with the job as %j', (cell, title) => {
    const plan = { urlColumn: { index: 0, path: [] }, titleColumn: { index: 1, path: [] } };
    expect(toRow(recordOf([URL, cell]), plan).title).toBe(title);
  });
});
