import type { JobPlace } from './run-jobs.js';

/** What reconciling finds about an image whose outcome has not come. */
export type Finding =
  /** Nobody has its job, twice in a row. */
  | { readonly image: string; readonly kind: 'lost' }
  /** Its job ended, twice in a row, and its result did not come: the job tells. */
  | { readonly image: string; readonly kind: 'ended' };

/**
 * Compares the images that wait for an outcome with the queue. One look proves nothing, since a result can be
 * on its way; two do, a while apart, with an empty results queue each time.
 */
export class Reconciler {
  #suspects = new Map<string, Finding['kind']>();

  /**
   * @param waiting images without an outcome
   * @param places where the queue has their jobs
   * @param resultsAreIn whether every result that was handed over has been looked at
   */
  look(waiting: Iterable<string>, places: ReadonlyMap<string, JobPlace>, resultsAreIn: boolean): Finding[] {
    if (!resultsAreIn) return [];
    const suspects = new Map<string, Finding['kind']>();
    for (const image of waiting) {
      const place = places.get(image);
      if (place !== 'unfinished') suspects.set(image, place === undefined ? 'lost' : 'ended');
    }
    const findings: Finding[] = [];
    for (const [image, kind] of suspects) {
      if (this.#suspects.get(image) === kind) findings.push({ image, kind });
    }
    this.#suspects = suspects;
    return findings;
  }
}
