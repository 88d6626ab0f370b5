import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SimulatorOptions } from '../../src/simulator/options.js';
import { type JournalEntry, readJournal } from '../../test/helpers/journal.js';
import { waitUntil } from '../../test/helpers/wait-until.js';
import { Program } from './program.js';

const SCRIPT = fileURLToPath(new URL('simulator.mjs', import.meta.url));

/**
 * The describe API as a process that can be killed. What it has been paid for is in its journal, whatever becomes
 * of it; messages outlive it, since they are in their ids.
 */
export class SimulatorProcess {
  readonly journalPath: string;
  #program: Program | undefined;
  #starts = 0;
  #settings: SimulatorOptions = {};
  #url = '';

  constructor(
    private readonly cli: string,
    private readonly folder: string,
    private readonly options: { readonly seed: number; readonly rejectShare: number },
  ) {
    this.journalPath = join(folder, 'journal.jsonl');
  }

  /** Base URL of the API; the same after a restart. */
  get url(): string {
    return this.#url;
  }

  /** Starts it with the settings that it had; the second time on the port of the first. */
  async start(): Promise<void> {
    const { seed, rejectShare } = this.options;
    const options: SimulatorOptions = {
      port: this.#url === '' ? 0 : Number(new URL(this.#url).port),
      seed: seed + this.#starts,
      journal: this.journalPath,
      latencyMs: 50,
      // What it refuses, it refuses from its first moment on.
      failures: { reject: rejectShare },
    };
    const args = [this.cli, JSON.stringify(options)];
    const name = `simulator-${++this.#starts}`;
    const program = Program.start(SCRIPT, args, { folder: this.folder, name });
    this.#program = program;
    const firstLine = () => readFileSync(program.stdoutPath, 'utf8').split('\n', 2);
    await waitUntil(`${name} listens`, () => program.isOver || firstLine().length === 2);
    if (program.isOver) throw new Error(`${name} ended: see ${this.folder}/${name}.stderr`);
    this.#url = firstLine()[0] ?? '';
    await this.set(this.#settings);
  }

  async set(settings: SimulatorOptions): Promise<void> {
    this.#settings = { ...this.#settings, ...settings };
    const response = await fetch(new URL('/options', this.#url), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(this.#settings),
    });
    if (!response.ok) throw new Error(`POST /options: ${response.status} ${await response.text()}`);
  }

  async kill(): Promise<void> {
    this.#program?.signal('SIGKILL');
    await this.#program?.ended;
  }

  /** All accepted submits so far: what has been paid. */
  paid(): JournalEntry[] {
    return readJournal(this.journalPath);
  }
}
