// Makes the empty queue of which each new embedded queue is a copy: `initdb` takes 900 MB and some seconds, which nobody
// is to need who only wants to try the program, and BullMQ's tables take another half of a second.
import { Buffer } from 'node:buffer';
import { rename, writeFile } from 'node:fs/promises';
import process from 'node:process';
import { URL } from 'node:url';
import { PGlite } from '@electric-sql/pglite';
import { runMigrations } from 'bullmq';
import { Database } from '../dist/shared/queue/embedded/database.js';

const path = new URL('../dist/empty-database.tar.gz', import.meta.url);
const unfinished = new URL(`${path.href}.${process.pid}`);
// The size of a log file, of which there is always one, in megabytes.
const engine = await PGlite.create({ initDbStartParams: ['--wal-segsize=1'] });
await runMigrations(new Database(engine, () => Promise.resolve(undefined)));
await engine.exec('CHECKPOINT');
const archive = await engine.dumpDataDir('gzip');
await writeFile(unfinished, Buffer.from(await archive.arrayBuffer()));
await rename(unfinished, path);
await engine.close();
