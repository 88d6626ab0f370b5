// Compiles the chaos program, together with the command line that it puts to the test, into a folder of its
// own, and runs it: a build that somebody makes meanwhile does not change what is being tested.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

const root = join(import.meta.dirname, '..', '..');
// In there, imports of packages find them.
const cache = join(root, 'node_modules', '.cache');
mkdirSync(cache, { recursive: true });
const compiled = mkdtempSync(join(cache, 'bulk-describe-chaos-'));
process.on('exit', () => rmSync(compiled, { recursive: true, force: true }));

const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
const project = join(import.meta.dirname, 'tsconfig.json');
execFileSync(process.execPath, [tsc, '-p', project, '--outDir', compiled], { stdio: 'inherit' });
// Says that these are ES modules, and the version.
copyFileSync(join(root, 'package.json'), join(compiled, 'package.json'));
copyFileSync(join(import.meta.dirname, 'simulator.mjs'), join(compiled, 'bench', 'chaos', 'simulator.mjs'));
// Whose copies new embedded queues are.
mkdirSync(join(compiled, 'dist'));
copyFileSync(join(root, 'dist', 'empty-database.tar.gz'), join(compiled, 'dist', 'empty-database.tar.gz'));
await import(join(compiled, 'bench', 'chaos', 'main.js'));
