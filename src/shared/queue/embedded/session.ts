import { PGlite, types } from '@electric-sql/pglite';
import { escapeBulkJson, escapeJson, escapeText, parseEscapedJson, unescapeText } from './text-escape.js';

const BULK_COMMANDS = /\b(?:add_jobs_bulk|add_flow)\(/;

const toText = (value: unknown) => escapeText(String(value));
const toJson = (value: unknown) => escapeJson(typeof value === 'string' ? value : JSON.stringify(value));
const toBulkJson = (value: unknown) =>
  escapeBulkJson(typeof value === 'string' ? value : JSON.stringify(value));

/** Every text that goes into or comes out of the database passes these; arrays of text too. */
const CODECS = {
  serializers: {
    [types.TEXT]: toText,
    [types.VARCHAR]: toText,
    [types.JSON]: toJson,
    [types.JSONB]: toJson,
  },
  parsers: {
    [types.TEXT]: unescapeText,
    [types.VARCHAR]: unescapeText,
    [types.JSON]: parseEscapedJson,
    [types.JSONB]: parseEscapedJson,
  },
};
const BULK_SERIALIZERS = { [types.JSON]: toBulkJson, [types.JSONB]: toBulkJson };

export interface SessionResult<R> {
  rows: R[];
  rowCount: number | null;
}

/** The one database session of this process: the database runs in it, on the files of a directory. */
export interface Session {
  /** Runs one statement; without parameters any number of them, whose rows nobody reads. */
  query<R>(text: string, params?: readonly unknown[]): Promise<SessionResult<R>>;
  onNotification(listener: (channel: string, payload: string) => void): () => void;
  close(): Promise<void>;
}

/** Opens the database in `dataDirectory`; creates it there when there is none, which takes seconds. */
export async function openSession(dataDirectory: string): Promise<Session> {
  const database = await PGlite.create({ dataDir: dataDirectory, ...CODECS });
  return {
    async query<R>(text: string, params?: readonly unknown[]): Promise<SessionResult<R>> {
      if (params === undefined && isSeveralStatements(text)) {
        await database.exec(text);
        return { rows: [], rowCount: null };
      }
      const serializers = BULK_COMMANDS.test(text) ? BULK_SERIALIZERS : undefined;
      const { rows, rowCount } = await database.query<R>(text, [...(params ?? [])], { serializers });
      return { rows, rowCount: rowCount ?? null };
    },
    onNotification: (listener) => database.onNotification(listener),
    close: () => database.close(),
  };
}

/** The protocol that takes parameters takes one statement only. */
function isSeveralStatements(text: string): boolean {
  const statements = text.replace(/--.*$/gm, '').trim();
  return statements.slice(0, -1).includes(';');
}
