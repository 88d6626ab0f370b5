import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BUILT = join(ROOT, 'dist', 'cli', 'main.js');
const EMPTY_DATABASE = join(ROOT, 'dist', 'empty-database.tar.gz');

/** Builds the command line if its sources are newer, so that tests start the code that is there. */
export default function setup(): void {
  if (!existsSync(EMPTY_DATABASE) || !existsSync(BUILT)) {
    execFileSync('npm', ['run', '--silent', 'build'], { cwd: ROOT, stdio: 'inherit' });
    return;
  }
  const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' });
  const newest = Math.max(...sources.map((name) => statSync(join(ROOT, 'src', name)).mtimeMs));
  if (statSync(BUILT).mtimeMs > newest) return;
  const startedAt = new Date();
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  utimesSync(BUILT, startedAt, startedAt);
}
