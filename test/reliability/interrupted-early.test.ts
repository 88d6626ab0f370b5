import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { InterruptedEarlyError } from '../../src/shared/errors.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

let workspace: Workspace;
beforeEach(async () => {
  workspace = await Workspace.create();
});
afterEach(() => workspace.remove());

it('a run that is interrupted while its files are read ends with 130, one line, and nothing created', async () => {
  const manifest = await workspace.write('m.csv', manifestOf(3));
  const interrupted = describeManifest({
    manifest,
    output: workspace.at('out.csv'),
    api: 'http://127.0.0.1:1/v2',
    token: 'any',
    queue: `embedded:${workspace.at('queue')}`,
    signal: AbortSignal.abort(),
  });
  await expect(interrupted).rejects.toThrow(InterruptedEarlyError);
  await expect(interrupted).rejects.toMatchObject({
    exitCode: 130,
    message: 'interrupted before the first submit',
  });
  expect(await workspace.files()).toEqual(['m.csv']);
});
