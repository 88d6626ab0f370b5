import { UsageError } from '../shared/errors.js';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Reads `127.0.0.1:8787`, `[::1]:8787`. @throws {UsageError} for anything else */
export function parseListenAddress(text: string, source: string): ListenAddress {
  const [, bracketed, plain, digits] = /^(?:\[([\da-f:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/i.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined || port > 65_535) {
    throw new UsageError(`${source} ${text}: expected <host>:<port>, such as 127.0.0.1:8787`);
  }
  return { host, port };
}
