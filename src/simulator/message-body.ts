import type { WireDescribed, WireInstant, WireMessage } from '../describe-api/wire.js';
import { endsAt, formatMessageId, type MessageFacts } from './message-id.js';
import { type Shape, SHAPES } from './options.js';
import { makePrompts } from './prompts.js';

export type OneShape = Exclude<Shape, 'mixed'>;

function isOneShape(shape: Shape): shape is OneShape {
  return shape !== 'mixed';
}

/** The one shape of a message that is asked for, or that `mixed` gives it. */
export function plainShape(facts: MessageFacts, shape: Shape): OneShape {
  if (isOneShape(shape)) return shape;
  const shapes = SHAPES.filter(isOneShape);
  return shapes[parseInt(facts.urlHash.slice(-4), 16) % shapes.length] ?? 'flat';
}

function toInstant(ms: number, asSeconds: boolean): WireInstant {
  if (!asSeconds) return new Date(ms).toISOString();
  return { _seconds: Math.floor(ms / 1000), _nanoseconds: (ms % 1000) * 1e6 };
}

/** A completed message without its `progress`: what a webhook is sent. */
export function describedBody(facts: MessageFacts, shape: Shape): WireDescribed {
  const one = plainShape(facts, shape);
  const prompts = makePrompts(facts.urlHash);
  return {
    createdAt: toInstant(facts.submittedAt, one === 'seconds-date'),
    originatingMessageId: formatMessageId(facts),
    content: one === 'string' || one === 'nested-string' ? prompts.join('\n') : prompts,
    ref: facts.ref,
    type: 'describe',
    responseAt: toInstant(facts.submittedAt + facts.latencyMs, one === 'seconds-date'),
  };
}

/** 0..99, by the share of its latency that has passed. */
export function progressOf(facts: MessageFacts, nowMs: number): number {
  const share = Math.max(0, nowMs - facts.submittedAt) / Math.max(1, facts.latencyMs);
  return Math.min(99, Math.floor(share * 100));
}

function workingBody(facts: MessageFacts, nowMs: number): WireMessage {
  const progress = progressOf(facts, nowMs);
  const image = `https://simulator.invalid/progress/${facts.urlHash}-${progress}.webp`;
  return { progress, progressImageUrl: progress === 0 ? null : image };
}

/** Whether a message is still worked on; see `endsAt`. */
export function isWorking(facts: MessageFacts, expireMins: number, nowMs: number): boolean {
  return nowMs < endsAt(facts, expireMins);
}

/** The answer to a poll. */
export function messageBody(
  facts: MessageFacts,
  { shape, expireMins, nowMs }: { shape: Shape; expireMins: number; nowMs: number },
): WireMessage {
  if (isWorking(facts, expireMins, nowMs)) return workingBody(facts, nowMs);
  if (facts.fate !== 'completes' || nowMs < facts.submittedAt + facts.latencyMs)
    return { progress: 'incomplete' };
  const described = describedBody(facts, shape);
  const one = plainShape(facts, shape);
  if (one === 'nested' || one === 'nested-string') return { progress: 100, response: described };
  return { progress: 100, ...described };
}
