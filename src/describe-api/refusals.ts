import { z } from 'zod';

/**
 * Whom or what an answer without prompts speaks of.
 * - `token`, `quota`, `set-up`: it would be the same for any image (`set-up`: URL, path, model, proxy)
 * - `forbidden`: a 403 without a word; perhaps one of those, perhaps the image
 * - `image`: this very image. `request`: the image, or the set-up where every image is refused alike
 * - `rate`: too many calls. `moment`: the same request may be taken later
 * - `page`: something in front of the API has answered, with a page
 */
export type About =
  'token' | 'quota' | 'set-up' | 'forbidden' | 'image' | 'request' | 'rate' | 'moment' | 'page';

/** What is known of an answer beside its words. */
export interface AnswerFacts {
  readonly status: number;
  readonly refused: boolean;
  /** The reason in its body; undefined where it has none. */
  readonly said: string | undefined;
  readonly isPage?: boolean | undefined;
  /** The dialect knows its words for a spent quota. */
  readonly isQuota?: boolean | undefined;
  /** The dialect says nothing of images by a 404. */
  readonly isNotFoundSetUp?: boolean | undefined;
}

/** No method, proxy, host or protocol of that kind. */
const NEVER_ABOUT_AN_IMAGE: ReadonlySet<number> = new Set([405, 407, 421, 426]);
/** The request is refused as it is. */
const REFUSING: ReadonlySet<number> = new Set([400, 404, 410, 413, 415, 422, 451]);
/** What a page says by its status of the token, the path, the rate or the size and kind of an image, as those do. */
const MORE_THAN_A_PAGE: ReadonlySet<number> = new Set([401, 402, 404, 413, 415, 429]);

const ABOUT_QUOTA =
  /\b(credits|credit (limit|balance)|(no|enough|insufficient) credit|quotas?|billing|subscription|payment required|insufficient (funds|balance)|out of (funds|tokens))\b/i;

/** What a 429 says when waiting does not help; a quota alone may be one of each minute. */
const IS_SPENT =
  /\b((no|no more|out of|insufficient|not enough) credits?|credits (are |have been )?(spent|used up|exhausted|depleted)|credit balance|insufficient (funds|balance)|out of funds|payment required)\b/i;

/** A 429 that no waiting helps: this request alone is beyond what a minute allows. */
const IS_TOO_LARGE = /\brequest too large\b|\bmust be reduced\b/i;

/** The account has as many in progress as its plan allows: one that is refused for that is as good as any. */
const ABOUT_TOO_MANY_AT_ONCE =
  /\bqueue (is )?(currently )?full\b|\b(concurrent|simultaneous) (jobs?|requests?|tasks?|generations?)\b/i;

const ABOUT_THE_KEY =
  /\bapi[ _-]?key\b.{0,40}\b(not valid|invalid|incorrect|wrong|expired|missing|required|revoked|disabled|not found)\b|\b(invalid|incorrect|wrong|expired|missing|no|revoked)\b.{0,20}\b(api[ _-]?key|access token|credentials)\b/i;

/** Moderation speaks of what is in the picture, and a model that answers has seen it. */
const ABOUT_THIS_IMAGE =
  /\b(moderation|content[ _-]?(policy|policies|filter|filtering|management policy)|safety (system|filter|settings|policy|guidelines)|nsfw|sexual|inappropriate|invalid phrase|banned (word|prompt|phrase)s?)\b|\b(image|input|content|prompt|request)\b.{0,30}\bflagged\b|^the model (refuses|refused)\b/i;

/** A model or server that sees no images, whatever they are. */
const SEES_NO_IMAGES =
  /\b(does not|doesn't|do not|don't|cannot|not) (support|accept|process|handle) (images?|vision|multi-?modal|image_url)( inputs?| urls?)?\b(?! (of|with|in|from|at|larger|bigger|types?|formats?|sizes?)\b)|\b(image|vision|multi-?modal) inputs? (is|are) (not|un)[ -]?(supported|enabled|allowed|available)\b|\bat most 0 images?\b|\bmmproj\b|\bfor image input\b|\bcontent must be a string\b|\bimages? (is|are) not supported (by|for|with|on) (this|the) (model|endpoint|server|api)\b|\bsupports? image input\b|\bimage_url is only supported\b|\bunknown variant .?image_url|\bnot a (vision|multi-?modal) model\b/i;

const ABOUT_THE_MODEL =
  /\b(unknown|invalid|unsupported|missing) model\b|\bno models?\b.{0,20}\b(loaded|specified|given|found|provided|available)\b|\bmodel\b.{0,80}\b(not found|does not exist|doesn't exist|not exist|is not available|not loaded|decommissioned|no longer available)\b/i;

/** What servers and frameworks say of a path that they do not have; an API that refuses an image names it, or says why. */
const ABOUT_A_ROUTE = [
  /^(404\b[\s:,-]*)?((page|path|route|endpoint)\s+)?not found[.!]?$/i,
  /^cannot (post|get)\b/i,
  /^(the |requested )*(route|endpoint)\b.*\b(not found|not be found|not exist|unknown)\b/i,
  /^(no|no such|unknown|invalid|unexpected) (route|endpoint|path|static resource)\b/i,
] as const;

const ABOUT_THE_MOMENT =
  /\b(timed?[ -]?out|overloaded|over capacity|at capacity|capacity[ _]exceeded|try again|please retry|retry (later|in)|temporar(y|ily)|too many requests|rate limit(ed)?|(service|currently) unavailable|server[ _]error|internal error|is busy|failed to (generate|validate) json|generated json does not match)\b/i;

/** URLs say nothing: `.../credit-card.png`. */
function withoutUrls(text: string): string {
  return text.replace(/\b[a-z]+:\/\/\S+/gi, ' ').trim();
}

function isSetUp({ status, isNotFoundSetUp = false, said }: AnswerFacts, words: string): boolean {
  if (NEVER_ABOUT_AN_IMAGE.has(status) || SEES_NO_IMAGES.test(words)) return true;
  if (status >= 500) return false;
  const isRoute = ABOUT_A_ROUTE.some((route) => route.test(said?.trim() ?? ''));
  if (status === 404) return said === undefined || isRoute || isNotFoundSetUp || ABOUT_THE_MODEL.test(words);
  return ABOUT_THE_MODEL.test(words) || (status < 300 && isRoute);
}

/** What an answer to a submit, other than the one that was asked for, speaks of: by its words first, then by its status. */
export function aboutOf(facts: AnswerFacts): About {
  const { status, refused, isPage = false, isQuota = false } = facts;
  const words = withoutUrls(facts.said ?? '');
  const isClear = status < 500 || refused;
  if (status === 401) return 'token';
  if (isPage && !MORE_THAN_A_PAGE.has(status) && !NEVER_ABOUT_AN_IMAGE.has(status)) return 'page';
  if (isQuota || (status === 429 && IS_SPENT.test(words))) return 'quota';
  if (status === 429) return IS_TOO_LARGE.test(words) ? 'request' : 'rate';
  if (status < 500 && ABOUT_THIS_IMAGE.test(words)) return 'image';
  if (status === 402 || (isClear && ABOUT_QUOTA.test(words))) return 'quota';
  if (status < 500 && ABOUT_THE_KEY.test(words)) return 'token';
  if (isClear && ABOUT_TOO_MANY_AT_ONCE.test(words)) return 'rate';
  if (isSetUp(facts, words)) return 'set-up';
  // A success is one that refuses in its body.
  if (status < 300 || REFUSING.has(status)) return ABOUT_THE_MOMENT.test(words) ? 'moment' : 'request';
  return status === 403 && !ABOUT_THE_MOMENT.test(words) ? 'forbidden' : 'moment';
}

const reasonSchema = z.union([
  z.string().trim().min(1),
  z.object({ message: z.string().trim().min(1) }).transform(({ message }) => message),
  z.object({ raw_message: z.string().trim().min(1) }).transform((error) => error.raw_message),
]);
const REASON_KEYS = 'msg message error raw_message detail failReason description'.split(' ');

/** Whether a body says `success: false`, be it as a text. */
export function isRefusal(body: unknown): boolean {
  // Asked of every answer: a schema that does not match takes the time of several that do.
  if (typeof body !== 'object' || body === null || !('success' in body)) return false;
  const { success } = body;
  return success === false || (typeof success === 'string' && success.trim().toLowerCase() === 'false');
}

/** The reason in a refusal or an error body: the first of `msg`, `message`, `error` and the like that is a text. It may be in a list. */
export function reasonIn(body: unknown): string | undefined {
  if (Array.isArray(body)) return body.length === 0 ? undefined : reasonIn(body[0]);
  const reasons = z.looseObject({}).safeParse(body);
  if (!reasons.success) return undefined;
  return REASON_KEYS.map((key) => reasonSchema.safeParse(reasons.data[key]).data).find((text) => text);
}

const ABOUT_THE_FORMAT =
  /\b(response_?format|json_schema|json_object|structured[ _]outputs?|json mode|grammar)\b/i;

/** Whether a refusal speaks of the format that answers were asked for in. */
export function isOfFormat(reason: string): boolean {
  return ABOUT_THE_FORMAT.test(withoutUrls(reason));
}

const ABOUT_A_URL =
  /\bbase ?64\b|\bdata:? ?ur[il]s?\b|\b(download|fetch|load|retriev|access)\w*\b.{0,40}\b(image|url|file)|\b(image|remote|external|https?|invalid|unsupported) ur[il]s?\b|\bur[il]s? (is|are|not|must)\b/i;

/** Whether a refusal speaks of the image's URL, such as that it has to be the image itself. */
export function isOfUrl(reason: string): boolean {
  return ABOUT_A_URL.test(withoutUrls(reason));
}

/** What is wrong with a set-up that describes nothing, and what to try. */
export function setUpAdvice(status: number, reason: string): string {
  const words = withoutUrls(reason);
  if (SEES_NO_IMAGES.test(words))
    return 'no images are taken (does --model name one that sees images? llama.cpp serves it with --mmproj)';
  if (NEVER_ABOUT_AN_IMAGE.has(status))
    return 'nothing is taken there (are --api, --dialect and the proxy right?)';
  return 'no such path or model (are --api, --dialect and --model right?)';
}

/** The same of one that is known by its results alone. */
export const SET_UP_ADVICE = {
  forbidden: 'every image is forbidden (may the token use this --api and --model?)',
  request:
    'every image is refused alike (does --model see images, can the API load them from their host, are --api and --dialect right?)',
  unreadable:
    'no answer can be read (is --api the API of this --dialect, and does --model see images and do as its prompt says?)',
} as const;
