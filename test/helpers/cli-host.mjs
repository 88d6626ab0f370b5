// A process that runs commands of the built command line, one after the other: see `runCommand` in cli.ts.
import process from 'node:process';

process.once('disconnect', () => process.exit());

let count = 0;
process.on('message', async ({ main, args, cwd, env }) => {
  for (const name of Object.keys(process.env)) Reflect.deleteProperty(process.env, name);
  Object.assign(process.env, env);
  process.chdir(cwd);
  process.argv = [process.execPath, main, ...args];
  process.exitCode = 0;
  // Evaluates main.js once more; what it imports is there already.
  await import(`${main}?${count++}`);
  process.removeAllListeners('exit');
  for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners('error');
  // The folder of a test does not outlive it.
  process.chdir('/');
  process.stdout.write(`\0${process.exitCode}\0`);
  process.stderr.write('\0');
});
