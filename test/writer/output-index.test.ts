import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { OutputIndex } from '../../src/writer/output-index.js';
import { imageOf } from './fixtures.js';

const A = imageOf('https://a');
const B = imageOf('https://b');

describe('an index without keys', () => {
  test('knows the place of an image, beyond 4 GB too', () => {
    const index = new OutputIndex({ keyed: false });
    index.addFound({ image: A, offset: 12, file: 0 });
    index.addFound({ image: B, offset: 7 * 2 ** 32 + 5, file: 3 });
    expect([index.placeOf(A), index.placeOf(B)]).toEqual([
      { file: 0, offset: 12 },
      { file: 3, offset: 7 * 2 ** 32 + 5 },
    ]);
    expect(index.placeOf(imageOf('https://c'))).toBeUndefined();
    expect([index.rows, index.earlierRows]).toEqual([1, 1]);
  });

  test('has as many rows of an image as the output holds, in each pass', () => {
    const index = new OutputIndex({ keyed: false });
    index.addFound({ image: A, offset: 0, file: 0 });
    index.addFound({ image: A, offset: 10, file: 0 });
    for (let pass = 0; pass < 2; pass++) {
      index.startPass();
      expect([1, 2, 3].map(() => index.take({ image: A }))).toEqual([true, true, false]);
      expect(index.take({ image: B })).toBe(false);
    }
  });

  test('says of each image that it holds whether a pass meets it for the first time', () => {
    const index = new OutputIndex({ keyed: false });
    index.addFound({ image: A, offset: 0, file: 0 });
    for (let pass = 0; pass < 2; pass++) {
      index.startPass();
      expect([A, A, B].map((image) => index.meetImage(image))).toEqual([true, false, undefined]);
    }
  });

  test('does not take a row that this pass appended for another one of the manifest', () => {
    const index = new OutputIndex({ keyed: false });
    index.addFound({ image: A, offset: 0, file: 0 });
    expect(index.take({ image: A })).toBe(true);
    expect(index.take({ image: A })).toBe(false);
    index.addAppended({ image: A, offset: 10 });
    expect(index.take({ image: A })).toBe(false);
    index.startPass();
    expect([1, 2, 3].map(() => index.take({ image: A }))).toEqual([true, true, false]);
  });

  test('tells rows that are there twice from rows that the manifest does not have', () => {
    const index = new OutputIndex({ keyed: false });
    for (const image of [A, A, A, B, undefined]) index.addFound({ image, offset: 0, file: 0 });
    index.take({ image: A });
    expect(index.surplus()).toEqual({ extra: 2, twice: 2 });
  });
});

test('forgets what the output held and keeps what earlier files hold', () => {
  const index = new OutputIndex({ keyed: false });
  index.addFound({ image: A, offset: 3, file: 1 });
  for (const image of [A, B]) index.addFound({ image, offset: 5, file: 0 });
  index.forgetOwn();
  expect([index.rows, index.placeOf(A), index.placeOf(B)]).toEqual([0, { file: 1, offset: 3 }, undefined]);
  expect([A, A, B].map((image) => index.take({ image }))).toEqual([true, false, false]);
});

describe('an index with keys', () => {
  test('knows which keys the output holds, those that are appended too', () => {
    const index = new OutputIndex({ keyed: true });
    index.addFound({ image: A, key: 'one', offset: 0, file: 0 });
    index.markSeen({ key: 'three' });
    expect(['one', 'two', 'three'].map((key) => index.has({ key }))).toEqual([true, false, false]);
    index.addAppended({ image: A, key: 'two', offset: 10 });
    expect(index.has({ key: 'two' })).toBe(true);
    expect(index.placeOf(A)).toEqual({ file: 0, offset: 0 });
  });

  test('sees a key once in each pass', () => {
    const index = new OutputIndex({ keyed: true });
    index.addFound({ image: A, key: 'one', offset: 0, file: 0 });
    for (let pass = 0; pass < 2; pass++) {
      index.startPass();
      expect(['one', 'two', 'one', 'two', ''].map((key) => index.markSeen({ key }))).toEqual([
        true,
        true,
        false,
        false,
        true,
      ]);
    }
    expect(index.has({ key: 'one' })).toBe(true);
    expect(index.has({ key: 'two' })).toBe(false);
  });

  test('counts keys that the output has twice', () => {
    const index = new OutputIndex({ keyed: true });
    for (const key of ['one', 'one', 'one', 'two', 'two'])
      index.addFound({ image: A, key, offset: 0, file: 0 });
    index.markSeen({ key: 'one' });
    index.markSeen({ key: 'three' });
    expect(index.surplus()).toEqual({ extra: 2, twice: 2 });
  });
});

test('accounts for every row of the output, whatever the manifest', () => {
  const names = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { maxLength: 12 });
  fc.assert(
    fc.property(names, names, fc.boolean(), (output, manifest, keyed) => {
      const index = new OutputIndex({ keyed });
      for (const name of output)
        index.addFound({ image: imageOf(name), key: keyed ? name : undefined, offset: 0, file: 0 });
      const isMatched = (name: string) =>
        keyed
          ? index.markSeen({ key: name }) && index.has({ key: name })
          : index.take({ image: imageOf(name) });
      const matched = manifest.filter(isMatched).length;
      const { extra, twice } = index.surplus();
      expect(matched + extra + twice).toBe(output.length);
      expect(extra).toBe(output.filter((name) => !manifest.includes(name)).length);
    }),
  );
});
