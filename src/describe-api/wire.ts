/**
 * What the describe API sends and takes, as its documentation writes it (docs/describe-api.md). These are the
 * strict forms; what is tolerated beyond them is in shapes.ts.
 */

/** Body of `POST /describe`; the fields are query parameters with `GET /describe`. */
export interface WireSubmit {
  readonly url: string;
  readonly ref?: string;
  readonly webhookOverride?: string;
}

/** Answer to a submit that was accepted, and paid for. */
export interface WireSubmitted {
  readonly success: true;
  readonly messageId: string;
  readonly createdAt: string;
}

/** A refusal, with any HTTP status. */
export interface WireRefusal {
  readonly success: false;
  readonly msg: string;
}

/** A point in time: ISO 8601, or the object that older deliveries have. */
export type WireInstant = string | { readonly _seconds: number; readonly _nanoseconds: number };

/** A described image; with a webhook this alone is the delivery. */
export interface WireDescribed {
  readonly createdAt: WireInstant;
  readonly originatingMessageId: string;
  /** Four prompts, or all of them in one string; each behind its keycap. */
  readonly content: readonly string[] | string;
  readonly ref: string;
  readonly type: 'describe';
  readonly responseAt: WireInstant;
}

export type WireMessage =
  | { readonly progress: number; readonly progressImageUrl?: string | null }
  | { readonly progress: 'incomplete' }
  | (WireDescribed & { readonly progress: 100 })
  | { readonly progress: 100; readonly response: WireDescribed };
