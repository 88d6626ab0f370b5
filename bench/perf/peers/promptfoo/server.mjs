// A model's server that takes 200 ms for each answer and says, on SIGUSR2, how many calls there were.
import { createServer } from 'node:http';
import process from 'node:process';
import { setTimeout } from 'node:timers';

let calls = 0;
const content = JSON.stringify({ prompts: ['a red barn', 'b', 'c', 'd'] });
const usage = { prompt_tokens: 1000, completion_tokens: 100, total_tokens: 1100 };

createServer((request, response) => {
  request.resume().on('end', () => {
    calls++;
    const choices = [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content } }];
    const body = { id: `c${calls}`, object: 'chat.completion', model: 'm', choices, usage };
    setTimeout(() => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(body));
    }, 200);
  });
}).listen(8098, '127.0.0.1');

process.on('SIGUSR2', () => process.stdout.write(`${calls} calls\n`));
