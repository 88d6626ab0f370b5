import { Redis } from 'ioredis';

/** What a Redis has done so far, and what it holds. */
export interface RedisFacts {
  /** Commands that clients have sent: each is a round trip, or a part of a pipeline. */
  readonly clientCommands: number;
  /** All commands, those within scripts too. */
  readonly allCommands: number;
  readonly cpuSeconds: number;
  readonly netBytes: number;
  readonly usedMb: number;
  readonly peakMb: number;
}

const FROM_CLIENTS = [
  'evalsha',
  'eval',
  'bzpopmin',
  'hgetall',
  'get',
  'hget',
  'llen',
  'zcard',
  'info',
  'ping',
  'del',
];

export async function readRedis(client: Redis): Promise<RedisFacts> {
  const text = await client.info('all');
  const number = (name: string) => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(text)?.[1] ?? 0);
  const calls = (command: string) =>
    Number(new RegExp(`^cmdstat_${command}:calls=(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  // What scripts call is counted under its own name as well; scripts are what clients send, nearly always.
  const scripts = FROM_CLIENTS.slice(0, 3).reduce((sum, command) => sum + calls(command), 0);
  return {
    clientCommands: scripts,
    allCommands: number('total_commands_processed'),
    cpuSeconds: number('used_cpu_sys') + number('used_cpu_user'),
    netBytes: number('total_net_input_bytes') + number('total_net_output_bytes'),
    usedMb: number('used_memory') / 1024 ** 2,
    peakMb: number('used_memory_peak') / 1024 ** 2,
  };
}

export function openClient(url: string): Redis {
  return new Redis(url, { maxRetriesPerRequest: null });
}
