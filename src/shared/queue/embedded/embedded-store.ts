import { LocalLimiter, type PermitRequest, type Permits } from '../limiter.js';
import type { MailboxBounds, MailboxListener, SharedStore } from '../store.js';
import { forgetQueue } from './bullmq-sql.js';
import type { Database } from './database.js';

interface Expiring {
  readonly text: string;
  readonly endsAtMs: number;
}

/** A clock that nobody sets. */
const now = () => performance.now();

/**
 * The shared values of the embedded queue. Nobody else shares them, so what need not outlive the process is
 * kept in its memory; the durable records are in a table beside the jobs'.
 */
export class EmbeddedStore implements SharedStore {
  readonly #limiters = new Map<string, LocalLimiter>();
  readonly #leases = new Map<string, Expiring>();
  readonly #mailboxes = new Map<string, Map<string, Expiring>>();
  readonly #listeners = new Map<string, Set<MailboxListener>>();
  readonly #groups = new Map<string, Map<string, Expiring>>();

  private constructor(private readonly database: Database) {}

  static async open(database: Database): Promise<EmbeddedStore> {
    await database.query('CREATE SCHEMA IF NOT EXISTS bulk_describe');
    await database.query(
      `CREATE TABLE IF NOT EXISTS bulk_describe.field (
         record text NOT NULL, name text NOT NULL, value text NOT NULL, PRIMARY KEY (record, name))`,
    );
    return new EmbeddedStore(database);
  }

  takePermits(name: string, request: PermitRequest): Promise<Permits> {
    return Promise.resolve(this.#limiterOf(name).take(request, now()));
  }

  holdPermits(name: string, ms: number): Promise<number> {
    return Promise.resolve(this.#limiterOf(name).hold(ms, now()));
  }

  #limiterOf(name: string): LocalLimiter {
    const limiter = this.#limiters.get(name) ?? new LocalLimiter();
    this.#limiters.set(name, limiter);
    return limiter;
  }

  async getFields(name: string): Promise<Record<string, string>> {
    const { rows } = await this.database.query<{ name: string; value: string }>(
      'SELECT name, value FROM bulk_describe.field WHERE record = $1',
      [name],
    );
    return Object.fromEntries(rows.map((row) => [row.name, row.value]));
  }

  async setFieldOnce(name: string, field: string, value: string): Promise<string> {
    await this.database.query(
      `INSERT INTO bulk_describe.field (record, name, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
      [name, field, value],
    );
    return (await this.getFields(name))[field] ?? value;
  }

  async setFields(name: string, fields: Record<string, string | null>): Promise<void> {
    const entries = Object.entries(fields);
    const set = entries.flatMap(([field, value]) => (value === null ? [] : [{ field, value }]));
    const removed = entries.flatMap(([field, value]) => (value === null ? [field] : []));
    // One statement is one transaction: all or none.
    await this.database.query(
      `WITH removed AS (DELETE FROM bulk_describe.field WHERE record = $1 AND name = ANY ($4::text[]))
       INSERT INTO bulk_describe.field (record, name, value)
       SELECT $1, * FROM unnest($2::text[], $3::text[])
       ON CONFLICT (record, name) DO UPDATE SET value = EXCLUDED.value`,
      [name, set.map(({ field }) => field), set.map(({ value }) => value), removed],
    );
  }

  async addToFields(name: string, deltas: Readonly<Record<string, number>>): Promise<Record<string, number>> {
    const entries = Object.entries(deltas);
    if (entries.length === 0) return {};
    const { rows } = await this.database.query<{ name: string; value: string }>(
      `INSERT INTO bulk_describe.field AS kept (record, name, value)
       SELECT $1, * FROM unnest($2::text[], $3::text[])
       ON CONFLICT (record, name) DO UPDATE SET value =
         (CASE WHEN kept.value ~ '^-?[0-9.]+(e[-+]?[0-9]+)?$' THEN kept.value::float8 ELSE 0 END + EXCLUDED.value::float8)::text
       RETURNING name, value`,
      [name, entries.map(([field]) => field), entries.map(([, delta]) => String(delta))],
    );
    return Object.fromEntries(rows.map((row) => [row.name, Number(row.value)]));
  }

  forgetQueue(queueName: string): Promise<void> {
    return forgetQueue(this.database, queueName);
  }

  lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    const holder = living(this.#leases.get(name));
    const free = holder === undefined || holder === owner;
    if (free) this.#leases.set(name, { text: owner, endsAtMs: now() + ttlMs });
    return Promise.resolve(free);
  }

  leaseOwner(name: string): Promise<string | undefined> {
    return Promise.resolve(living(this.#leases.get(name)));
  }

  release(name: string, owner: string): Promise<void> {
    if (this.#leases.get(name)?.text === owner) this.#leases.delete(name);
    return Promise.resolve();
  }

  announce(group: string, member: string, text: string, ttlMs: number): Promise<void> {
    const members = this.#groups.get(group) ?? new Map<string, Expiring>();
    this.#groups.set(group, members.set(member, { text, endsAtMs: now() + ttlMs }));
    return Promise.resolve();
  }

  withdraw(group: string, member: string): Promise<void> {
    this.#groups.get(group)?.delete(member);
    return Promise.resolve();
  }

  members(group: string, spareMs = 0): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    for (const [member, entry] of this.#groups.get(group) ?? []) {
      const text = living(entry);
      if (text === undefined) this.#groups.get(group)?.delete(member);
      else if (entry.endsAtMs - now() > spareMs) found.set(member, text);
    }
    return Promise.resolve(found);
  }

  putMessage(mailbox: string, name: string, text: string, { ttlMs, max }: MailboxBounds): Promise<void> {
    const messages = this.#mailboxes.get(mailbox) ?? new Map<string, Expiring>();
    this.#mailboxes.set(mailbox, messages);
    // A map keeps its entries as they came: the oldest are at its beginning.
    messages.delete(name);
    messages.set(name, { text, endsAtMs: now() + ttlMs });
    for (const [old, message] of messages) {
      if (messages.size <= max && message.endsAtMs > now()) break;
      messages.delete(old);
    }
    for (const listener of this.#listeners.get(mailbox) ?? []) listener.came(name, text);
    return Promise.resolve();
  }

  messages(mailbox: string, names: readonly string[]): Promise<Map<string, string>> {
    const found = names.flatMap((name) => {
      const text = living(this.#mailboxes.get(mailbox)?.get(name));
      return text === undefined ? [] : [[name, text] as const];
    });
    return Promise.resolve(new Map(found));
  }

  listen(mailbox: string, listener: MailboxListener): Promise<() => void> {
    const listeners = this.#listeners.get(mailbox) ?? new Set<MailboxListener>();
    this.#listeners.set(mailbox, listeners.add(listener));
    return Promise.resolve(() => listeners.delete(listener));
  }
}

function living(entry: Expiring | undefined): string | undefined {
  return entry !== undefined && entry.endsAtMs > now() ? entry.text : undefined;
}
