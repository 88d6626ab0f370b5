import { readFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { judgeSubmitFailure } from '../../src/describe-api/attempt-policy.js';
import { DescribeClient } from '../../src/describe-api/client.js';
import { answering, serve } from './http-server.js';

const casesSchema = z.array(
  z.object({
    name: z.string(),
    status: z.int(),
    body: z.unknown(),
    expect: z.union([
      z.object({ described: z.array(z.string()) }),
      z.object({ failed: z.string() }),
      z.string(),
    ]),
  }),
);
const FILE = new URL('../fixtures/model-answers.json', import.meta.url);
/** Answers of OpenAI-compatible servers; those of other statuses are about the policy of retries. */
const ANSWERS = casesSchema
  .parse(JSON.parse(readFileSync(FILE, 'utf8')))
  .filter(({ status }) => status === 200)
  .map((answer): [string, typeof answer] => [answer.name, answer]);

async function submitTo(body: unknown, choices?: 4) {
  const server = await serve(answering(200, body));
  const client = new DescribeClient({ baseUrl: server.url, dialect: 'openai', model: 'm', choices });
  onTestFinished(() => client.close());
  return client.submit({ url: 'https://images.test/a.jpg' }).then(
    ({ completed }) => ({ prompts: completed?.prompts, verdict: undefined }),
    (error: unknown) => ({ prompts: undefined, verdict: judgeSubmitFailure(error) }),
  );
}

test.each(ANSWERS)(
  '%s is read as four prompts without doubt, or fails',
  async (name, { body, expect: expected }) => {
    const { prompts, verdict } = await submitTo(body, name === 'n-ignored' ? 4 : undefined);
    if (typeof expected === 'object' && 'described' in expected) {
      expect(prompts).toEqual(expected.described);
      return;
    }
    expect(prompts).toBeUndefined();
    if (typeof expected === 'object') {
      expect(expected.failed).toContain(verdict && 'code' in verdict ? verdict.code : 'no code');
      return;
    }
    if (expected.startsWith('set-up')) expect(verdict).toMatchObject({ why: 'set-up' });
    else if (expected.startsWith('retried')) expect(verdict).toMatchObject({ action: 'retry', code: 'http' });
    else expect(verdict).toMatchObject({ action: 'stop', why: 'set-up' });
  },
);

test('fewer of several answers than were asked for are of this image; one alone is of a server that knows no others', async () => {
  const choices = ['one', 'two', 'three'].map((content) => ({
    message: { content: `${content}, a red barn` },
  }));
  expect((await submitTo({ choices }, 4)).verdict).toMatchObject({ action: 'retry', code: 'bad-response' });
  expect((await submitTo({ choices: choices.slice(0, 1) }, 4)).verdict).toMatchObject({ why: 'set-up' });
});
