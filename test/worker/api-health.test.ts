import { describe, expect, test, vi } from 'vitest';
import { ApiHealth } from '../../src/worker/api-health.js';

type Call = 'submit' | 'poll';
type Step = `${Call} fails ${string}` | `${Call} answered` | `${Call} succeeds`;

/** Takes steps such as `submit fails a`. */
function take(health: ApiHealth, steps: readonly Step[]): void {
  for (const step of steps) {
    const [call, what, image = ''] = step.split(' ');
    const kind = call === 'poll' ? 'poll' : 'submit';
    if (what === 'fails') health.failed(kind, image);
    else if (what === 'answered') health.answered(kind);
    else health.succeeded(kind);
  }
}

const submitsFail: Step[] = ['a', 'b', 'c', 'd', 'e'].map((image): Step => `submit fails ${image}`);
const pollsFail: Step[] = ['a', 'b', 'c', 'd', 'e'].map((image): Step => `poll fails ${image}`);
const tenOf = (call: Call) => Array.from({ length: 10 }, (_, count): Step => `${call} fails ${count % 2}`);

describe('when the API counts as down', () => {
  test.each<[string, Step[], 'up' | 'down']>([
    ['nothing has happened', [], 'up'],
    ['five submits of different images fail in a row', submitsFail, 'down'],
    ['five polls of different images fail in a row', pollsFail, 'down'],
    ['four fail', submitsFail.slice(1), 'up'],
    ['nine fail, over two images', tenOf('submit').slice(1), 'up'],
    ['ten fail, over two images', tenOf('submit'), 'down'],
    ['ten polls fail, over two images', tenOf('poll'), 'down'],
    ['submits and polls fail, neither five times', [...submitsFail.slice(1), ...pollsFail.slice(1)], 'up'],
    ['a success comes between', [...submitsFail.slice(1), 'submit succeeds', 'submit fails e'], 'up'],
    ['a refusal comes between', [...submitsFail.slice(1), 'submit answered', 'submit fails e'], 'up'],
    [
      'polls succeed between failing submits',
      [...submitsFail.slice(1), 'poll succeeds', 'submit fails a'],
      'down',
    ],
    [
      'polls are answered between failing submits',
      [...submitsFail.slice(1), 'poll answered', 'submit fails a'],
      'down',
    ],
    [
      'submits are refused between failing polls',
      [...pollsFail.slice(1), 'submit answered', 'poll fails a'],
      'down',
    ],
    ['it was down, and a submit goes through', [...submitsFail, 'submit succeeds'], 'up'],
    ['it was down, and a submit is refused, or told to wait', [...submitsFail, 'submit answered'], 'up'],
    ['submits failed, and only polls succeed', [...submitsFail, 'poll succeeds', 'poll answered'], 'down'],
    ['polls failed, and a poll succeeds', [...pollsFail, 'poll succeeds'], 'up'],
    ['polls failed, and one is answered with 404 or 429', [...pollsFail, 'poll answered'], 'up'],
    ['polls failed, and a submit goes through', [...pollsFail, 'submit succeeds'], 'up'],
    ['polls failed, and a submit is refused', [...pollsFail, 'submit answered'], 'down'],
    ['both failed, and a poll succeeds', [...submitsFail, ...pollsFail, 'poll succeeds'], 'down'],
    ['both failed, and a submit goes through', [...submitsFail, ...pollsFail, 'submit succeeds'], 'up'],
    ['it came up, and one more fails', [...submitsFail, 'submit succeeds', 'submit fails f'], 'up'],
    ['it came up, and five more fail', [...submitsFail, 'submit answered', ...submitsFail], 'down'],
  ])('%s', (_name, steps, state) => {
    const health = new ApiHealth(() => 7);
    take(health, steps);
    expect(health.downSince).toBe(state === 'down' ? 7 : undefined);
    expect(health.submitDelayMs() === 0).toBe(state === 'up');
  });

  test('keeps the time when it went down, whatever fails later', () => {
    let now = 100;
    const health = new ApiHealth(() => now);
    take(health, submitsFail);
    now = 5000;
    take(health, [...submitsFail, ...pollsFail, 'poll succeeds']);
    expect(health.downSince).toBe(100);
  });

  test('tells once when the API is back', () => {
    const onUp = vi.fn();
    const health = new ApiHealth(() => 0, onUp);
    take(health, ['submit succeeds', 'poll succeeds', ...submitsFail]);
    expect(onUp).not.toHaveBeenCalled();
    take(health, ['submit answered', 'submit succeeds', 'poll succeeds']);
    expect(onUp).toHaveBeenCalledTimes(1);
  });
});

describe('probing an API that is down', () => {
  /** A health whose API is down, and its clock. */
  function down() {
    const clock = { now: 0 };
    const health = new ApiHealth(() => clock.now);
    take(health, submitsFail);
    return { health, clock };
  }

  /** When the images that ask every 100 ms are let through, in the next `forMs`; each probe ends by `end`. */
  function probes(forMs: number, end: (health: ApiHealth, image: string) => void): number[] {
    const { health, clock } = down();
    const times: number[] = [];
    for (; clock.now < forMs; clock.now += 100) {
      if (health.submitDelayMs() > 0) continue;
      times.push(clock.now);
      end(health, `image ${clock.now}`);
    }
    return times;
  }

  test('probes after 1, 2, 4, 8 and then each 15 s while probes fail', () => {
    const failing = probes(75_000, (health, image) => health.failed('submit', image));
    expect(failing).toEqual([1000, 3000, 7000, 15_000, 30_000, 45_000, 60_000]);
  });

  test('lets one image through at a time', () => {
    const { health, clock } = down();
    expect(health.submitDelayMs()).toBe(1000);
    clock.now = 1000;
    expect([health.submitDelayMs(), health.submitDelayMs()]).toEqual([0, 2000]);
    clock.now = 1400;
    expect(health.submitDelayMs()).toBe(1600);
  });

  test('goes on with another image when a probe never comes back', () => {
    expect(probes(20_000, () => undefined)).toEqual([1000, 3000, 7000, 15_000]);
  });

  test('lets everybody through as soon as a probe is answered', () => {
    const { health, clock } = down();
    health.submitDelayMs();
    clock.now = 1000;
    health.submitDelayMs();
    health.answered('submit');
    expect(['x', 'y', 'z'].map(() => health.submitDelayMs())).toEqual([0, 0, 0]);
  });

  test('begins with short pauses when it goes down anew', () => {
    const { health, clock } = down();
    for (const now of [0, 1000, 3000, 7000]) {
      clock.now = now;
      if (health.submitDelayMs() === 0) health.failed('submit', 'probe');
    }
    health.succeeded('submit');
    take(health, submitsFail);
    expect(health.submitDelayMs()).toBe(1000);
  });
});

describe('refusals that may be those of any image', () => {
  test('are certain when three different images are refused with no success between', () => {
    const health = new ApiHealth();
    expect(['a', 'a', 'b', 'b'].map((image) => health.suspected(image, false))).not.toContain(true);
    expect(health.suspected('c', false)).toBe(true);
  });

  test('are certain when fewer images have met three that say so', () => {
    const health = new ApiHealth();
    expect([1, 2, 3].map(() => health.suspected('only', true))).toEqual([false, false, true]);
    health.succeeded('submit');
    expect(health.suspected('only', true)).toBe(false);
  });

  test.each<[string, Step, boolean]>([
    ['a submit that goes through starts the count anew', 'submit succeeds', false],
    ['a poll that succeeds proves nothing', 'poll succeeds', true],
    ['a refusal proves nothing', 'submit answered', true],
  ])('%s', (_name, step, isSpent) => {
    const health = new ApiHealth();
    health.suspected('a', false);
    health.suspected('b', false);
    take(health, [step]);
    expect(health.suspected('c', false)).toBe(isSpent);
  });
});

describe('images that are refused before any was described', () => {
  const three = ['a', 'b', 'c'];

  test('are no fault of theirs when three in a row are refused in the same words', () => {
    const health = new ApiHealth();
    expect(three.map((image) => health.refused(image, 'invalid image input'))).toEqual([false, false, true]);
  });

  test('are at fault when one image alone is refused, or each in other words', () => {
    const health = new ApiHealth();
    expect(three.map(() => health.refused('a', 'bad'))).not.toContain(true);
    expect(three.map((image) => health.refused(image, `cannot load ${image}`))).not.toContain(true);
  });

  test('wait for the first success, and no longer than they are told', async () => {
    const health = new ApiHealth();
    const { signal } = new AbortController();
    expect(await health.waitUntilWorked(1, signal)).toBe(false);
    const waiting = health.waitUntilWorked(60_000, signal);
    health.succeeded('submit');
    expect(await waiting).toBe(true);
  });
});

describe('trouble', () => {
  test('is said from the first call that cannot reach the API until one does', () => {
    const health = new ApiHealth();
    health.failed('submit', 'a', '500 Internal Server Error');
    expect(health.trouble).toBeUndefined();
    health.failed('submit', 'a', 'there is no host', true);
    expect([health.trouble, health.downSince]).toEqual(['there is no host', undefined]);
    health.answered('submit');
    expect(health.trouble).toBeUndefined();
  });
});
