import type { AnswerHeaders } from './dialect.js';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const LONGEST_MS = 15 * 60_000;
const KINDS = ['requests', 'tokens'] as const;

/**
 * `6m0s`, `1h2m3.5s`, `20ms`, or seconds without a unit, in milliseconds.
 * @returns undefined when it is none of these
 */
export function resetToMs(text: string): number | undefined {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed) * 1000;
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(trimmed)) return undefined;
  const parts = [...trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  return parts.reduce((sum, [, value, unit]) => sum + Number(value) * (UNIT_MS[unit ?? ''] ?? 0), 0);
}

/**
 * How long nothing is left of what `x-ratelimit-remaining-*` counts: requests or tokens, the longer of the two.
 * @returns milliseconds from now, at most 15 minutes; undefined while something is left
 */
export function exhaustedForMs(headers: AnswerHeaders): number | undefined {
  const waits = KINDS.flatMap((kind) => {
    const remaining = headers[`x-ratelimit-remaining-${kind}`]?.trim();
    const reset = headers[`x-ratelimit-reset-${kind}`];
    if (remaining === undefined || !/^-?\d+$/.test(remaining) || Number(remaining) > 0) return [];
    const ms = reset === undefined ? undefined : resetToMs(reset);
    return ms === undefined ? [] : [Math.min(LONGEST_MS, Math.ceil(ms))];
  });
  return waits.length === 0 ? undefined : Math.max(...waits);
}
