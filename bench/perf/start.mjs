// Compiles the benchmarks, together with the program that they measure, into a folder of their own, and runs them:
// a build that somebody makes meanwhile does not change what is being measured.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

const root = join(import.meta.dirname, '..', '..');
// In there, imports of packages find them.
const cache = join(root, 'node_modules', '.cache');
mkdirSync(cache, { recursive: true });
const compiled = mkdtempSync(join(cache, 'bulk-describe-perf-'));
process.on('exit', () => rmSync(compiled, { recursive: true, force: true }));

const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
const project = join(import.meta.dirname, 'tsconfig.json');
execFileSync(process.execPath, [tsc, '-p', project, '--outDir', compiled], { stdio: 'inherit' });
// Says that these are ES modules, and the version.
copyFileSync(join(root, 'package.json'), join(compiled, 'package.json'));
mkdirSync(join(compiled, 'dist'));
copyFileSync(join(root, 'dist', 'empty-database.tar.gz'), join(compiled, 'dist', 'empty-database.tar.gz'));
await import(join(compiled, 'bench', 'perf', 'main.js'));
