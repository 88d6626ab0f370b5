import { z } from 'zod';
import type { SimulatedDialect } from './dialects/simulated-dialect.js';
import { isWorking } from './message-body.js';
import { DEFAULT_EXPIRE_MINS, parseMessageId } from './message-id.js';
import type { SimulatorSettings } from './options.js';
import { drawKind, type Random } from './random.js';
import { refuse, type Reply } from './reply.js';
import type { StatsKeeper } from './stats.js';

const expireMinsSchema = z.coerce.number().positive().default(DEFAULT_EXPIRE_MINS);

/** Answers one poll whose token is good; everything it needs to know is in the id. */
export function answerPoll(
  dialect: SimulatedDialect,
  { id, expireMins: expireText }: { id: string; expireMins: unknown },
  { settings, random, stats }: { settings: SimulatorSettings; random: Random; stats: StatsKeeper },
  nowMs: number,
): Reply {
  const expireMins = expireMinsSchema.safeParse(expireText);
  if (!expireMins.success) return refuse(dialect, 'invalid', 'Invalid expireMins');
  const facts = parseMessageId(id);
  if (!facts) return refuse(dialect, 'missing', 'Message not found');
  const failure = drawKind(['pollError', 'pollMissing'], settings.failures, random);
  if (failure === 'pollError') {
    stats.countFailure(failure);
    return refuse(dialect, 'broken', 'Internal Server Error');
  }
  if (failure === 'pollMissing' && isWorking(facts, expireMins.data, nowMs)) {
    stats.countFailure(failure);
    return refuse(dialect, 'missing', 'Message not found');
  }
  const body = dialect.message(facts, { shape: settings.shape, expireMins: expireMins.data, nowMs });
  return { kind: 'json', status: 200, body };
}
