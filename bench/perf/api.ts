// A process of its own: the describe API that a benchmark runs against. It ends when its parent does.
import { startSimulator } from '../../src/simulator/simulator.js';
import { readAbout } from './read-about.js';

const { latencyMs, latencySpread, seed } = readAbout();
const simulator = await startSimulator({ latencyMs, latencySpread, seed, trackUrls: false });
process.on('disconnect', () => void simulator.close().then(() => process.exit()));
process.send?.(simulator.url);
