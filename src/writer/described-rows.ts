import type { OutputIndex } from './output-index.js';

/** How a row or its image is called in an index. */
export interface NamedRow {
  /** Only with a key column. */
  readonly key?: string | undefined;
  readonly image?: string | undefined;
}

/**
 * The rows that an output and the earlier files beside it hold together. Of rows that share an image the earlier files
 * hold the first, and the output the next.
 */
export class DescribedRows {
  #fromEarlier = 0;

  /** @param earlier of all earlier files; undefined where there are none */
  constructor(
    private readonly own: OutputIndex,
    private readonly earlier: OutputIndex | undefined,
  ) {}

  /** Manifest rows that this pass has met and earlier files hold. */
  get fromEarlier(): number {
    return this.#fromEarlier;
  }

  /** The manifest is about to be read from its start. */
  startPass(): void {
    this.#fromEarlier = 0;
    this.own.startPass();
    this.earlier?.startPass();
  }

  /** Meets a manifest row's key: false when this pass has seen it already. Without keys always true. */
  markSeen({ key }: NamedRow): boolean {
    return !this.own.keyed || this.own.markKeySeen(key ?? '');
  }

  /** Meets the next manifest row: true when it is one that is described. Without keys each call uses one up. */
  take(row: NamedRow): boolean {
    if (this.earlier !== undefined && takeFrom(this.earlier, row)) {
      this.#fromEarlier++;
      return true;
    }
    return takeFrom(this.own, row);
  }

  /** Whether a row of this key is described; in a manifest without keys, whether one of this image is. */
  has(row: NamedRow): boolean {
    return this.own.keyed
      ? this.own.keyInOutput(row.key ?? '') || this.earlier?.keyInOutput(row.key ?? '') === true
      : row.image !== undefined && this.hasImage(row.image);
  }

  /** Whether any row of this image is described, so that its prompts can be copied. */
  hasImage(image: string): boolean {
    return this.own.offsetOf(image) !== undefined || this.earlier?.offsetOf(image) !== undefined;
  }

  /** The output's rows that no manifest row stands for, see `OutputIndex.surplus`; not those of earlier files. */
  surplus(): { extra: number; twice: number } {
    return this.own.surplus(this.earlier);
  }
}

function takeFrom(index: OutputIndex, { key, image }: NamedRow): boolean {
  if (index.keyed) return index.keyInOutput(key ?? '');
  return image !== undefined && index.takeOccurrence(image);
}
