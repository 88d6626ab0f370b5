import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HashTable } from '../../src/shared/hash-table.js';

/** Spreads a number over 64 bits. */
function hashOf(number: number) {
  const mix = (seed: number) => Math.imul(number ^ seed, 0x9e3779b1) ^ (Math.imul(number, 0x85ebca6b) >>> 15);
  return { high: mix(0x1234) >>> 0, low: mix(0x77777) >>> 0 };
}

test('behaves like a Map', () => {
  const half = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 0xffff_ffff }));
  const steps = fc.array(fc.record({ high: half, low: half, value: fc.nat(0xffff_ffff) }), {
    maxLength: 300,
  });
  fc.assert(
    fc.property(steps, (all) => {
      const table = new HashTable([4, 2, 2]);
      const model = new Map<string, number>();
      for (const { high, low, value } of all) {
        // A hash of zeros takes its neighbour's place.
        const name = `${high}:${high === 0 && low === 0 ? 1 : low}`;
        const entry = table.find({ high, low });
        expect(entry !== -1 ? table.get(entry, 0) : undefined).toBe(model.get(name));
        const added = table.add({ high, low });
        table.set(added, 0, value);
        table.set(added, 1, value & 0xffff);
        table.set(added, 2, value & 0xff);
        expect([table.get(added, 1), table.get(added, 2)]).toEqual([value & 0xffff, value & 0xff]);
        model.set(name, value);
      }
      expect(table.size).toBe(model.size);
      expect([...table.entries()].map((entry) => table.get(entry, 0)).sort()).toEqual(
        [...model.values()].sort(),
      );
    }),
  );
});

test('starts new entries at 0 and keeps their cells while it grows', () => {
  const table = new HashTable([4]);
  for (let number = 0; number < 50_000; number++) {
    const entry = table.add(hashOf(number));
    expect(table.get(entry, 0)).toBe(0);
    table.set(entry, 0, number);
  }
  expect(table.size).toBe(50_000);
  for (let number = 0; number < 50_000; number++) {
    const entry = table.find(hashOf(number));
    if (entry === -1 || table.get(entry, 0) !== number) expect.fail(`entry ${number} is lost`);
  }
  expect(table.find(hashOf(50_001))).toBe(-1);
});

test('never takes more than 1.29 times its entries, after any growth', () => {
  const table = new HashTable([4, 2]);
  for (let number = 0; number < 200_000; number++) {
    table.add(hashOf(number));
    if (number > 20_000 && number % 1000 === 0) expect(table.bytes / table.size).toBeLessThan(14 * 1.29);
  }
});

test('that was told its size ends about there, and stays tight where it was told too much or too little', () => {
  const bytesFor = (expected: number): number => {
    const table = new HashTable([4, 2]);
    table.expect(expected);
    for (let number = 0; number < 100_000; number++) table.add(hashOf(number));
    for (let number = 0; number < 100_000; number += 7) {
      if (table.find(hashOf(number)) === -1) expect.fail(`entry ${number} is lost`);
    }
    return table.bytes / table.size;
  };
  expect(bytesFor(100_000)).toBeLessThan(14 * 1.2);
  expect(bytesFor(50_000)).toBeLessThan(14 * 1.29);
  expect(bytesFor(10_000_000)).toBeLessThan((14 / 0.9) * 1.52);
});

test('changes one column of every entry', () => {
  const table = new HashTable([2, 2]);
  for (let number = 1; number <= 100; number++) {
    const entry = table.add(hashOf(number));
    table.set(entry, 0, number);
    table.set(entry, 1, 7);
  }
  table.mapColumn(0, (value) => value & 1);
  const cells = [...table.entries()].map((entry) => [table.get(entry, 0), table.get(entry, 1)]);
  expect(cells.filter(([low]) => low === 1)).toHaveLength(50);
  expect(cells.every(([low = 0, other]) => low <= 1 && other === 7)).toBe(true);
});

test('forgets everything when it is cleared, gives the memory back, and can be used again', () => {
  const table = new HashTable([4]);
  const { bytes } = table;
  for (let number = 0; number < 5000; number++) table.set(table.add(hashOf(number)), 0, number);
  expect(table.bytes).toBeGreaterThan(bytes);
  table.clear();
  expect([table.size, table.bytes, table.find(hashOf(7))]).toEqual([0, bytes, -1]);
  table.set(table.add(hashOf(7)), 0, 9);
  expect([table.size, table.get(table.find(hashOf(7)), 0)]).toEqual([1, 9]);
});
