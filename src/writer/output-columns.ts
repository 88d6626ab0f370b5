/** What the output has behind the manifest's columns, in this order. */
export const OUTPUT_COLUMNS = [
  'prompt_1',
  'prompt_2',
  'prompt_3',
  'prompt_4',
  'message_id',
  'described_at',
] as const;

/** What the failures file has behind the manifest's columns, in this order. */
export const FAILURE_COLUMNS = ['error_code', 'error', 'attempts', 'message_id'] as const;

/** Names that a manifest's columns may not have. */
export const RESERVED_COLUMNS: ReadonlySet<string> = new Set([...OUTPUT_COLUMNS, ...FAILURE_COLUMNS]);

/** The message ids that the built-in simulator gives begin with this. */
export const SIMULATED_MESSAGE_PREFIX = 'sim-';
