import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { Screen } from '../../src/cli/terminal.js';

test('redraws in place in one write, breaks or cuts what does not fit, and gives the terminal back as it was', () => {
  const written: string[] = [];
  const stream = new PassThrough();
  stream.on('data', (chunk: Buffer) => written.push(chunk.toString()));
  const screen = new Screen(Object.assign(stream, { columns: 14, rows: 3 }));
  screen.show(['one', '1234567890123456', 'three', 'four']);
  screen.show(['uno dos tres cuatro']);
  screen.end();
  screen.end();
  expect(written).toEqual([
    '\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[Hone\u001b[K\r\n1234567890123…\u001b[K\r\n(2 more lines)\u001b[K\u001b[J',
    '\u001b[Huno dos tres\u001b[K\r\n  cuatro\u001b[K\u001b[J',
    '\u001b[?7h\u001b[?25h\u001b[?1049l',
  ]);
});
