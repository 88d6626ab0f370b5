import type { Redis } from 'ioredis';
import { FatalError, messageOf } from '../../errors.js';
import { KEY_PREFIX } from '../job-machinery.js';

/** What `INFO` tells of a server, as far as it matters here; a managed one may leave things out. */
export interface ServerFacts {
  readonly version: string | undefined;
  readonly evictionPolicy: string | undefined;
  readonly role: string | undefined;
}

/** Reads the answer to `INFO`. */
export function parseInfo(info: string): ServerFacts {
  const fields = new Map(
    info.split(/\r?\n/).flatMap((line) => {
      const colon = line.indexOf(':');
      return colon > 0 ? [[line.slice(0, colon), line.slice(colon + 1).trim()] as const] : [];
    }),
  );
  return {
    version: fields.get('redis_version'),
    evictionPolicy: fields.get('maxmemory_policy'),
    role: fields.get('role'),
  };
}

const OLDEST = [6, 2] as const;

function isTooOld(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]);
}

/** Why a server cannot hold the queue, on one line; undefined when it can, as far as is known. */
export function refusalOf(facts: ServerFacts, label: string): string | undefined {
  const { version, evictionPolicy, role } = facts;
  if (version !== undefined && isTooOld(version)) {
    return `Redis at ${label} is version ${version}: ${OLDEST.join('.')} or newer is needed`;
  }
  if (role === 'slave') return `Redis at ${label} is a read-only replica: give the address of its primary`;
  if (evictionPolicy !== undefined && evictionPolicy !== 'noeviction') {
    return (
      `Redis evicts keys when it is full, and jobs would vanish: ${label} has maxmemory-policy ${evictionPolicy}; ` +
      'set it to noeviction (redis-cli config set maxmemory-policy noeviction)'
    );
  }
  return undefined;
}

/** An error of a command that the user of the URL may not run, or that a managed server does not have. */
function isNotPermitted(error: unknown): boolean {
  return /^NOPERM |unknown command/i.test(messageOf(error));
}

/** A write that fails when writes are not possible; leaves nothing behind. */
export async function probeWrite(client: Redis): Promise<void> {
  await client.set(`${KEY_PREFIX}::probe`, '1', 'PX', 1000);
}

/**
 * Checks that the server can hold the queue.
 * @returns whether it let itself be asked; BullMQ may not ask either then
 * @throws {FatalError} when it cannot
 */
export async function checkServer(client: Redis, label: string): Promise<boolean> {
  const facts = await readFacts(client);
  const refusal = facts === undefined ? undefined : refusalOf(facts, label);
  if (refusal !== undefined) throw new FatalError(refusal);
  try {
    await probeWrite(client);
  } catch (error) {
    throw new FatalError(`Redis at ${label} accepts no writes: ${messageOf(error)}`);
  }
  return facts !== undefined;
}

async function readFacts(client: Redis): Promise<ServerFacts | undefined> {
  try {
    const facts = parseInfo(await client.info());
    return facts.evictionPolicy === undefined
      ? { ...facts, evictionPolicy: await readPolicy(client) }
      : facts;
  } catch (error) {
    if (isNotPermitted(error)) return undefined;
    throw error;
  }
}

async function readPolicy(client: Redis): Promise<string | undefined> {
  try {
    const reply: unknown = await client.config('GET', 'maxmemory-policy');
    return Array.isArray(reply) ? reply.map(String)[1] : undefined;
  } catch (error) {
    if (isNotPermitted(error)) return undefined;
    throw error;
  }
}
