import { describe, expect, test } from 'vitest';
import { affordable, budgetStop, checkBudget, costOf, estimatedCost } from '../../src/run/budget.js';
import { NOTHING_SPENT } from '../../src/shared/run-spending.js';

const SPENT = { submits: 12, answered: 10, unusable: 0, inputTokens: 10_000, outputTokens: 2000 };
const TOKENS = { perMillionIn: 1, perMillionOut: 10 };

describe('what a run costs', () => {
  test.each([
    ['no prices', undefined, undefined],
    ['tokens', TOKENS, 0.03],
    ['tokens in alone', { perMillionIn: 1 }, 0.01],
    ['images', { perImage: 0.5 }, 5],
    ['both', { ...TOKENS, perImage: 0.5 }, 5.03],
  ])('is known by %s', (_, prices, cost) => {
    expect(costOf(SPENT, prices)).toBe(cost);
  });

  test('is estimated by the images before, and not without any', () => {
    expect(estimatedCost(100, SPENT, TOKENS)).toBeCloseTo(0.3);
    expect(estimatedCost(100, NOTHING_SPENT, TOKENS)).toBeUndefined();
    expect(estimatedCost(100, NOTHING_SPENT, { perImage: 0.5 })).toBe(50);
    expect(estimatedCost(100, { ...SPENT, unusable: 5 }, { perImage: 0.5 })).toBe(75);
  });
});

describe('a budget', () => {
  test('stops what has reached it, and nothing before', () => {
    expect(budgetStop(SPENT, { prices: TOKENS, maxCost: 0.03 })).toMatchObject({ kind: 'budget' });
    expect(budgetStop(SPENT, { prices: TOKENS, maxCost: 0.031, maxCalls: 13 })).toBeUndefined();
    expect(budgetStop(SPENT, { maxCalls: 12 })).toMatchObject({ kind: 'budget' });
    expect(budgetStop(SPENT, {})).toBeUndefined();
  });

  test('bounds what is under way by what is left', () => {
    const left = (maxCost: number) => affordable(SPENT, { prices: TOKENS, maxCost });
    expect([left(0.3), left(0.06), left(0.0305), left(0.01)]).toEqual([90, 10, 1, 1]);
    expect(affordable(NOTHING_SPENT, { prices: TOKENS, maxCost: 1 })).toBe(1);
    expect(affordable(NOTHING_SPENT, { prices: { perImage: 0.1 }, maxCost: 1 })).toBe(10);
    expect(affordable(SPENT, { prices: TOKENS })).toBe(Infinity);
  });

  test('needs prices', () => {
    expect(() => checkBudget({ maxCost: 1 })).toThrow('--max-cost needs prices');
    expect(() => checkBudget({ prices: TOKENS, dialect: 'mj' })).toThrow('the mj dialect counts no tokens');
    expect(() => checkBudget({ maxCost: 1, prices: { perImage: 1 } })).not.toThrow();
  });
});
