import { cpus, loadavg, totalmem } from 'node:os';
import { spawnSync } from 'node:child_process';

/** Where and when something was measured. */
export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly node: string;
  readonly redis: string;
  /** One-minute load average before the first part: what others were doing here. */
  readonly loadBefore: number;
}

export function describeMachine(): Machine {
  const [first] = cpus();
  const redis = spawnSync('redis-server', ['--version'], { encoding: 'utf8' }).stdout;
  return {
    date: new Date().toISOString(),
    cpu: first?.model ?? 'unknown',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 1024 ** 3),
    node: process.version,
    redis: /v=(\S+)/.exec(redis)?.[1] ?? 'unknown',
    loadBefore: Math.round((loadavg()[0] ?? 0) * 100) / 100,
  };
}

/** One line for people; a load that was there before makes figures provisional. */
export function machineLine(machine: Machine): string {
  const { date, cpu, cores, memoryGb, node, redis, loadBefore } = machine;
  const busy = loadBefore > cores / 4 ? '; others were at work here: provisional' : '';
  return `${date}, ${cores} cores (${cpu}), ${memoryGb} GB, Node ${node}, Redis ${redis}, load before ${loadBefore}${busy}`;
}
