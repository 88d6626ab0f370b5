// Loaded into the process that is measured (--import): writes down by how many milliseconds its timers are late.
import { writeFileSync } from 'node:fs';
import { percentile } from './table.js';

const EVERY_MS = 10;
const to = new URL(import.meta.url).searchParams.get('to') ?? '';
const lags: number[] = [];
let due = performance.now() + EVERY_MS;
const timer = setInterval(() => {
  const now = performance.now();
  lags.push(Math.max(0, now - due));
  due = now + EVERY_MS;
}, EVERY_MS);
timer.unref();
process.on('exit', () => writeFileSync(to, String(Math.round(percentile(lags, 0.99)))));
