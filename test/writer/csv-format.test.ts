import fc from 'fast-check';
import { stringify } from 'csv-stringify/sync';
import { describe, expect, test } from 'vitest';
import { formatRecord } from '../../src/writer/csv-format.js';

const delimiters = fc.constantFrom(',', ';', '\t');
const cell = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: fc.constantFrom('a', '"', ',', ';', '\t', '\n', '\r', ' ', '\0', 'é') }),
);

describe('formatRecord', () => {
  test.each([
    [['a', 'b c', ' d '], 'a,b c, d \n'],
    [['a,b', 'c"d', 'e\nf', 'g\rh'], '"a,b","c""d","e\nf","g\rh"\n'],
    [['a;b'], 'a;b\n'],
    [[''], '""\n'],
    [['', ''], ',\n'],
  ])('writes %j', (cells, text) => {
    expect(formatRecord(cells, ',')).toBe(text);
  });

  test('writes what csv-stringify writes', () => {
    fc.assert(
      fc.property(fc.array(cell, { minLength: 2 }), delimiters, (cells, delimiter) => {
        const quoted = stringify([cells], { delimiter, quoted_match: /\r/ });
        expect(formatRecord(cells, delimiter)).toBe(quoted);
      }),
    );
  });
});
