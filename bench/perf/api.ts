// A process of its own: the describe API that a benchmark runs against. It ends when its parent does.
import { SimulatedApi } from '../../src/simulator/api.js';
import { createApp, listenWith } from '../../src/simulator/simulator.js';
import { readAbout } from './read-about.js';

class CountingApi extends SimulatedApi {
  readonly #counts = { submits: 0, polls: 0 };

  get stats() {
    return { ...this.#counts, inFlight: this.limits.inFlight(Date.now()) };
  }

  override answer(...args: Parameters<SimulatedApi['answer']>) {
    const [, call] = args;
    this.#counts[call === 'submit' ? 'submits' : 'polls']++;
    return super.answer(...args);
  }
}

const { latencyMs, latencySpread, seed } = readAbout();
const api = new CountingApi({ latencyMs, latencySpread, seed });
const app = createApp(api);
app.get('/stats', () => api.stats);
const simulator = await listenWith(app, 0);
process.on('disconnect', () => void simulator.close().then(() => process.exit()));
process.send?.(simulator.url);
