// Refusals of a submit that are about where it was sent, and not about its image: no image fails by them.

/** No method, proxy, host or protocol of that kind. */
const NEVER_ABOUT_AN_IMAGE: ReadonlySet<number> = new Set([405, 407, 421, 426]);

/** What servers and frameworks say of a path that they do not have; an API that refuses an image names it, or says why. */
const ABOUT_A_ROUTE = [
  /^(404\b[\s:,-]*)?((page|path|route|endpoint)\s+)?not found[.!]?$/i,
  /^cannot (post|get)\b/i,
  /^(the |requested )*(route|endpoint)\b.*\b(not found|not be found|not exist|unknown)\b/i,
  /^(no|no such|unknown|invalid) (route|endpoint|path|static resource)\b/i,
] as const;

const NO_SUCH_PATH = 'no such path or model (are --api, --dialect and --model right?)';
const NOT_TAKEN = 'nothing is taken there (are --api, --dialect and the proxy right?)';

/**
 * Whether a failed submit speaks of the set-up (URL, dialect, model, proxy): 405, 407, 421, 426, and a 404 that gives no
 * reason of its own. A 404 with a reason is about the image, but for dialects that say nothing of images that way.
 * @param said the reason in the body, where there is one
 * @returns how its reason begins; undefined when it is about the image, or about something else
 */
export function setUpTrouble(
  status: number,
  said: string | undefined,
  { isNotFoundSetUp = false }: { readonly isNotFoundSetUp?: boolean | undefined },
): string | undefined {
  if (NEVER_ABOUT_AN_IMAGE.has(status)) return NOT_TAKEN;
  if (status !== 404) return undefined;
  const isRoute = said === undefined || ABOUT_A_ROUTE.some((words) => words.test(said.trim()));
  return isRoute || isNotFoundSetUp ? NO_SUCH_PATH : undefined;
}

/** Whether a reason is one that begins with `setUpTrouble`. */
export function isSetUpTrouble(reason: string): boolean {
  return reason.startsWith(NO_SUCH_PATH) || reason.startsWith(NOT_TAKEN);
}
