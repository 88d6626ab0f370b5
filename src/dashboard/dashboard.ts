import { listen, queueTrouble } from '../shared/http-server.js';
import { silentLogger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { UndoStack } from '../shared/undo.js';
import { DASHBOARD_DEFAULTS, type DashboardOptions, refuseOpenDashboard } from './access.js';
import { Board } from './board.js';
import { renderMetrics } from './metrics.js';
import { Pages } from './pages/pages.js';
import { BOARD_PATH, createServer } from './server.js';

export interface Dashboard {
  /** Where people find it. */
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves Bull Board, the run pages and the metrics of a queue. The connection stays the caller's.
 * @throws {UsageError} when the port is taken or the address is none, or when other machines could reach it
 *   without a password
 */
export async function startDashboard(
  connection: QueueConnection,
  options: DashboardOptions = {},
): Promise<Dashboard> {
  const { host = DASHBOARD_DEFAULTS.host, port = DASHBOARD_DEFAULTS.port, credentials } = options;
  const logger = options.logger ?? silentLogger();
  const readOnly = options.readOnly === true;
  refuseOpenDashboard(host, credentials);
  const undo = new UndoStack();
  try {
    const board = new Board(connection, { readOnly, basePath: BOARD_PATH, logger });
    await board.start();
    undo.defer(() => board.stop());
    const app = await createServer({
      access: { credentials, readOnly },
      board,
      pages: new Pages(connection, BOARD_PATH),
      metrics: () => renderMetrics(connection),
      trouble: () => queueTrouble(connection),
      logger,
    });
    undo.defer(() => app.close());
    const { url, port: actualPort } = await listen(app, { host, port }, 'the dashboard at');
    return { url, port: actualPort, close: () => undo.release() };
  } catch (error) {
    await undo.release();
    throw error;
  }
}
