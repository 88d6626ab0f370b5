import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import { parseJson } from '../shared/parse-json.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { lastWord } from '../shared/queue/last-word.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import type { PollSchedule } from './poll-schedule.js';

const EVERY_MS = 10_000;
const LAST_WORD_MS = 2000;

const latenciesSchema = z.array(z.number().positive()).max(1000);

/**
 * How long an account's describes have been taking, kept beside its queue: the next worker begins with that, and does
 * not poll a whole night's first images in the dark.
 */
export class RememberedLatencies {
  readonly #record: string;
  #rememberedAt = performance.now();
  #remembered: readonly number[] = [];

  constructor(
    private readonly connection: Pick<QueueConnection, 'store' | 'isAway'>,
    queueName: string,
    private readonly logger: Logger,
  ) {
    this.#record = `latencies:${queueName}`;
  }

  /** Milliseconds, for `createPollSchedule`; none where nothing was learned yet. */
  async read(): Promise<readonly number[]> {
    const { ms = '' } = await this.connection.store.getFields(this.#record);
    this.#remembered = latenciesSchema.safeParse(parseJson(ms)).data ?? [];
    return this.#remembered;
  }

  /** To be called each second or so. */
  async remember(schedule: Pick<PollSchedule, 'learned'>): Promise<void> {
    if (performance.now() - this.#rememberedAt < EVERY_MS) return;
    this.#rememberedAt = performance.now();
    const learned = schedule.learned();
    if (learned.length === 0 || learned === this.#remembered) return;
    await this.connection.store.setFields(this.#record, { ms: JSON.stringify(learned) });
    this.#remembered = learned;
  }

  /** Remembers what was learned last, unless the queue is away. */
  async stop(schedule: Pick<PollSchedule, 'learned'>): Promise<void> {
    this.#rememberedAt = -Infinity;
    try {
      await unlessAborted(this.remember(schedule), lastWord(this.connection, LAST_WORD_MS));
    } catch (error) {
      this.logger.debug({ error: messageOf(error) }, 'how long describes take is learned anew the next time');
    }
  }
}
