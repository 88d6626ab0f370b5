import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import ts from 'typescript';
import { onTestFinished } from 'vitest';

const MODULES = ['errors', 'file-lock', 'parse-json', 'process-identity'];

const SCRIPT = `
import { createInterface } from 'node:readline';
import { acquireFileLock } from './shared/file-lock.js';
let lock;
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const [command, path] = line.split(' ');
  try {
    if (command === 'acquire') lock = await acquireFileLock(path, { what: 'this output' });
    if (command === 'release') await lock.release();
    console.log('done');
  } catch (error) {
    console.log(error.name + ': ' + error.message);
  }
}
`;

/** Compiles the lock for processes of its own, which cannot run TypeScript. */
export async function compileLock(folder: string): Promise<string> {
  await mkdir(join(folder, 'shared'));
  const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
  for (const name of MODULES) {
    const source = await readFile(join(import.meta.dirname, '../../src/shared', `${name}.ts`), 'utf8');
    const { outputText } = ts.transpileModule(source, { compilerOptions });
    await writeFile(join(folder, 'shared', `${name}.js`), outputText);
  }
  await symlink(join(import.meta.dirname, '../../node_modules'), join(folder, 'node_modules'));
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  const script = join(folder, 'hold-lock.js');
  await writeFile(script, SCRIPT);
  return script;
}

/** A process that takes and gives back one lock on command. */
export class LockProcess {
  readonly #lines: AsyncIterator<string, undefined>;

  private constructor(private readonly child: ChildProcess) {
    if (!child.stdout) throw new Error('the process has no stdout');
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  static async start(script: string): Promise<LockProcess> {
    const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    const started = new LockProcess(child);
    await started.#answer();
    return started;
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** @returns `done`, or the error's name and message */
  async acquire(path: string): Promise<string> {
    this.child.stdin?.write(`acquire ${path}\n`);
    return await this.#answer();
  }

  async release(): Promise<string> {
    this.child.stdin?.write('release\n');
    return await this.#answer();
  }

  /** Ends it without any chance to clean up. */
  async kill(): Promise<void> {
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
  }

  async #answer(): Promise<string> {
    const answer = await this.#lines.next();
    return answer.done === true ? 'ended' : answer.value;
  }
}
