import { UsageError } from '../shared/errors.js';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** What a person should know of an address that others can reach; undefined for one that only this machine can. */
export function openAddressWarning({ host }: ListenAddress): string | undefined {
  if (/^(127(\.\d{1,3}){3}|::1|localhost)$/i.test(host)) return undefined;
  return `warning: deliveries are received at ${host} without TLS, where others can reach it: have a proxy with TLS before it`;
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
