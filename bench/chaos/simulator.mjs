// A process of its own: the describe API of a round, made of what the command line next to it is made of. It prints its URL,
// and `POST /options` changes how it behaves.
import { join } from 'node:path';
import process from 'node:process';

const [, , cli, given] = process.argv;
const simulator = join(cli, '..', '..', 'simulator');
const { SimulatedApi } = await import(join(simulator, 'api.js'));
const { completeOptions } = await import(join(simulator, 'options.js'));
const { createApp, listenWith } = await import(join(simulator, 'simulator.js'));

const api = new SimulatedApi(JSON.parse(given));
const app = createApp(api);
app.post('/options', ({ body }) => {
  api.options = completeOptions({ ...api.options, ...body });
  return {};
});
const { url } = await listenWith(app, api.options.port);
process.stdout.write(`${url}\n`);
