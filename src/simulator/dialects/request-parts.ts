import type { FastifyRequest } from 'fastify';
import { z } from 'zod';

const objectSchema = z.looseObject({});

/** A field of a body or a query; undefined when there is none. */
export function fieldOf(body: unknown, name: string): unknown {
  const object = objectSchema.safeParse(body);
  return object.success ? object.data[name] : undefined;
}

/** The token of an `Authorization: Bearer` header. */
export function bearerOf(request: FastifyRequest): string | undefined {
  return /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
}

export function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
