import { pick, randomOfHash } from './random.js';

// Commas, quotes, letters beyond ASCII and line breaks are here on purpose: the real prompts have them.
const SUBJECTS = [
  'girl with pink hair in a rain-soaked alley',
  'an old lighthouse, its lamp lit, above a "sleeping" sea',
  'two foxes playing chess in a winter forest',
  "a fisherman's hands mending a blue net",
  'portrait of an astronaut, visor half open',
  'café terrace at dusk, crowded, warm lamps',
  'abandoned greenhouse overgrown with orchids',
  'a red bicycle leaning on a whitewashed wall',
] as const;
const STYLES = [
  'in the style of Zdzisław Beksiński',
  'in the style of 葛飾北斎, woodblock print',
  'in the style of Alphonse Mucha, art nouveau',
  'in the style of José Clemente Orozco, "mural" brushwork',
  'in the style of Hilma af Klint & Søren Kierkegård',
  'in the style of Élisabeth Vigée Le Brun, oil on canvas',
] as const;
const DETAILS = [
  'soft focus, 35mm film grain',
  'dark teal and light amber',
  'volumetric light, ultra detailed, 8k',
  '“golden hour” glow, muted palette',
  'high contrast; sharp shadows',
  'pastel gouache, flat colors',
] as const;
const RATIOS = ['50:93', '1:1', '16:9', '2:3', '128:85', '4:5'] as const;
const LINE_BREAK_SHARE = 0.1;

/**
 * The four prompts of an image as the API gives them: each behind its keycap, the aspect ratio at its end.
 * The same image always gets the same ones.
 */
export function makePrompts(urlHash: string): string[] {
  const ratio = pick(RATIOS, randomOfHash(urlHash, 0));
  return [1, 2, 3, 4].map((digit) => {
    const random = randomOfHash(urlHash, digit);
    const separator = random() < LINE_BREAK_SHARE ? ',\n' : ', ';
    const parts = [pick(SUBJECTS, random), pick(STYLES, random), pick(DETAILS, random)];
    return `${digit}\uFE0F\u20E3 ${parts.join(separator)} --ar ${ratio}`;
  });
}
