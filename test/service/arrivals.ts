/** How a rate was used, judged by when submits arrived at the API. All times in milliseconds. */
export interface RateUse {
  /** Submits in the fullest window, wherever it begins. */
  readonly fullest: number;
  /** Submits a second from the first moment that counts to the last, in shares of the rate. */
  readonly share: number;
}

/**
 * @param arrivals when each submit arrived, in order
 * @param rate submits a second
 * @param windowMs how long a window is
 * @param edgesMs how much of the beginning and of the end does not count for the share
 */
export function rateUse(
  arrivals: readonly number[],
  rate: number,
  { windowMs, edgesMs }: { readonly windowMs: number; readonly edgesMs: number },
): RateUse {
  const first = (arrivals[0] ?? NaN) + edgesMs;
  const last = (arrivals.at(-1) ?? NaN) - edgesMs;
  const between = arrivals.filter((at) => at >= first && at < last).length;
  return { fullest: fullestWindow(arrivals, windowMs), share: between / (((last - first) / 1000) * rate) };
}

function fullestWindow(arrivals: readonly number[], windowMs: number): number {
  let begin = 0;
  let most = 0;
  arrivals.forEach((at, index) => {
    while (at - (arrivals[begin] ?? at) >= windowMs) begin++;
    most = Math.max(most, index - begin + 1);
  });
  return most;
}
