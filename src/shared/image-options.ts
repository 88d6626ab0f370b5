/** How images are sent to the API. */
export interface ImageOptions {
  /** `url`: the API loads them; `data`: they are sent along; `auto`: as the API takes them. */
  readonly send?: 'url' | 'data' | 'auto' | undefined;
  /** Where local images are served for APIs that take URLs alone; see `startImageServer`. */
  readonly publicUrl?: string | undefined;
  /** Real paths of the folders whose files may be read; none. */
  readonly roots?: readonly string[] | undefined;
  /** Whether symbolic links may lead out of them. */
  readonly followLinks?: boolean | undefined;
  /** Whether images are fetched from this machine and private networks too. */
  readonly allowPrivate?: boolean | undefined;
  readonly maxBytes?: number | undefined;
  /** Of the longer side, in pixels: larger ones are made smaller. */
  readonly side?: number | undefined;
}

/** The command line shows them, and loads no worker for that. */
export const IMAGE_DEFAULTS = { send: 'auto', maxBytes: 20 * 1024 ** 2, side: 1536 } as const;
