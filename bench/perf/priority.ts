import { constants, setPriority } from 'node:os';

/**
 * Lets a process have a processor whenever it wants one, as if it were on a machine of its own.
 * @returns false where that is not permitted: it takes root
 */
export function letGoFirst(pid: number): boolean {
  try {
    setPriority(pid, constants.priority.PRIORITY_HIGHEST);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_SYSTEM_ERROR') return false;
    throw error;
  }
}
