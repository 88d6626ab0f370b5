/**
 * `1. `, `2) `, `(3) `, `Prompt 4: `, each also in bold (`**1.** `, `**Prompt 1:** `, `**1. ...**`), as a heading or
 * behind a bullet. Groups: bold begins, digit, mark, bold ends, mark, text.
 */
const NUMBERED =
  /^(?:[-*+•]\s+|#{1,6}\s+)?(\*\*|__)?(?:prompt\s*)?[#(]?([1-4])\s*([.):])?(\*\*|__)?([.):])?(?:\s+(.*))?$/is;
const BULLETED = /^[-*+•–]\s+(.*)$/s;
/** An introduction such as "I'm sorry, I cannot see the image. You can:" is none to four prompts. */
const REFUSING = /\b(sorry|can'?t|can’t|cannot|unable|not able)\b/i;

/** Lines 1 to 4 of a numbered list, each of which is there once and in order; their texts may be on the line after. */
export function numberedLines(text: string): string[] | undefined {
  const lines = linesOf(text);
  const items = lines.flatMap((line, index) => {
    const [, bold, digit, mark, boldEnds, lateMark, rest = ''] = NUMBERED.exec(line) ?? [];
    if (digit === undefined || (mark ?? lateMark) === undefined) return [];
    const next = lines[index + 1] ?? '';
    const item = rest === '' && !NUMBERED.test(next) ? next : rest;
    return [{ digit, text: bold !== undefined && boldEnds === undefined ? withoutEnd(item, bold) : item }];
  });
  const isInOrder = items.length === 4 && items.every(({ digit }, index) => digit === String(index + 1));
  return isInOrder ? items.map((item) => item.text) : undefined;
}

/** Four lines with bullets and nothing else, but for one line that introduces them: bullets are in any talk. */
export function bulletedLines(text: string): string[] | undefined {
  const lines = linesOf(text);
  const [first = ''] = lines;
  const isIntroduced = !BULLETED.test(first) && /[:：]\W*$/.test(first.slice(-10)) && !REFUSING.test(first);
  const items = (isIntroduced ? lines.slice(1) : lines).map((line) => BULLETED.exec(line)?.[1]);
  const texts = items.filter((item) => item !== undefined);
  return items.length === 4 && texts.length === 4 ? texts : undefined;
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function withoutEnd(text: string, end: string): string {
  return text.endsWith(end) ? text.slice(0, -end.length) : text;
}
