import { imaginepro } from './imaginepro.js';
import { legnext } from './legnext.js';
import { openai } from './openai.js';
import type { SimulatedDialect } from './simulated-dialect.js';
import { thenextleg } from './thenextleg.js';

/** All are spoken on one port: their paths tell them apart. */
export const SIMULATED_DIALECTS: readonly SimulatedDialect[] = [thenextleg, imaginepro, legnext, openai];
