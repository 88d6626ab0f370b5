import { spawnSync } from 'node:child_process';
import { mkdir, rm, symlink } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { RootFolder } from '../../src/service/root-folder.js';
import { Workspace } from '../helpers/workspace.js';

describe("a server's folder", () => {
  let workspace: Workspace;
  let root: RootFolder;

  beforeEach(async () => {
    workspace = await Workspace.create();
    await mkdir(workspace.at('root/deep'), { recursive: true });
    await mkdir(workspace.at('elsewhere'));
    await workspace.write('elsewhere/m.csv', 'image\n');
    await workspace.write('root/m.csv', 'image\n');
    root = await RootFolder.open(workspace.at('root'));
  });
  afterEach(() => workspace.remove());

  test('holds relative and absolute paths below it', async () => {
    const manifest = `${root.path}/m.csv`;
    expect(await root.existing('m.csv', 'the manifest')).toBe(manifest);
    expect(await root.existing('deep/../m.csv', 'the manifest')).toBe(manifest);
    expect(await root.existing(manifest, 'the manifest')).toBe(manifest);
    expect(await root.output('deep/out.csv')).toBe(`${root.path}/deep/out.csv`);
    expect(await root.output('..out.csv')).toBe(`${root.path}/..out.csv`);
  });

  test.each([
    '../elsewhere/m.csv',
    '/etc/hostname',
    '../nowhere.csv',
    'link/m.csv',
    'm-link.csv',
    'deep/up/m.csv',
  ])('refuses the manifest %s', async (name) => {
    await symlink(workspace.at('elsewhere'), workspace.at('root/link'));
    await symlink(workspace.at('elsewhere/m.csv'), workspace.at('root/m-link.csv'));
    await symlink('../../elsewhere', workspace.at('root/deep/up'));
    await expect(root.existing(name, 'the manifest')).rejects.toThrow(/leads out of the server's folder/);
  });

  test('finds what patterns mean, but for the files of the output', async () => {
    for (const name of ['part-10', 'part-2', 'part-out'])
      await workspace.write(`root/${name}.csv`, 'image\n');
    const found = await root.manifests(['m.csv', 'part-*'], [`${root.path}/part-out.csv`]);
    expect(found).toEqual(['m', 'part-2', 'part-10'].map((name) => `${root.path}/${name}.csv`));
  });

  test.each(['../else*/m.csv', '/etc/host*', 'deep/../../*/m.csv', 'link/*.csv', 'm-l*.csv'])(
    'refuses the pattern %s',
    async (name) => {
      await symlink(workspace.at('elsewhere'), workspace.at('root/link'));
      await symlink(workspace.at('elsewhere/m.csv'), workspace.at('root/m-link.csv'));
      await expect(root.manifests([name], [])).rejects.toThrow(/leads out of the server's folder/);
    },
  );

  test.each(['metadata.csv', 'metadata.jsonl', 'metadata.parquet'])(
    'refuses a folder of images whose %s is a link to elsewhere, and takes one to a file of its own',
    async (name) => {
      await symlink(workspace.at('elsewhere/m.csv'), workspace.at(`root/deep/${name}`));
      const words = new RegExp(`^the manifest .*/deep/${name} leads out of the server's folder`);
      await expect(root.manifests(['deep'], [])).rejects.toThrow(words);
      await rm(workspace.at(`root/deep/${name}`));
      await symlink('../m.csv', workspace.at(`root/deep/${name}`));
      expect(await root.manifests(['deep'], [])).toEqual([`${root.path}/deep`]);
    },
  );

  test.each(['../out.csv', '/tmp/out.csv', 'link/out.csv', 'out-link.csv', '../none/out.csv'])(
    'refuses the output %s',
    async (name) => {
      await symlink(workspace.at('elsewhere'), workspace.at('root/link'));
      await symlink(workspace.at('elsewhere/m.csv'), workspace.at('root/out-link.csv'));
      await expect(root.output(name)).rejects.toThrow(/leads out of the server's folder/);
    },
  );

  test.each(['out.failed.csv', 'out.failed.csv.partial', 'out.csv.run', 'out.csv.lock', 'out.parquet.jsonl'])(
    'refuses an output whose %s is a link to elsewhere',
    async (name) => {
      await symlink(workspace.at('elsewhere/m.csv'), workspace.at(`root/${name}`));
      const output = name.startsWith('out.parquet') ? 'out.parquet' : 'out.csv';
      await expect(root.output(output)).rejects.toThrow(/leads out of the server's folder/);
    },
  );

  test('refuses what is no file, such as a pipe that nobody would ever end', async () => {
    spawnSync('mkfifo', [workspace.at('root/pipe.csv'), workspace.at('root/out.csv.run')]);
    await symlink('pipe.csv', workspace.at('root/to-pipe.csv'));
    for (const name of ['pipe.csv', 'to-pipe.csv', 'deep']) {
      const noFile = /^the (manifest|output) .* is no regular file: name one$/;
      await expect(root.existing(name, 'the manifest')).rejects.toThrow(noFile);
      await expect(root.output(name)).rejects.toThrow(noFile);
    }
    await expect(root.output('out.csv')).rejects.toThrow(/^out\.csv\.run, .* is no regular file/);
  });

  test('follows links that stay inside, and refuses those to nothing', async () => {
    await symlink('deep', workspace.at('root/inside'));
    await symlink('nothing.csv', workspace.at('root/dangling.csv'));
    expect(await root.output('inside/out.csv')).toBe(`${root.path}/deep/out.csv`);
    await expect(root.output('dangling.csv')).rejects.toThrow(/symbolic link to nothing/);
    await expect(root.existing('none.csv', 'the manifest')).rejects.toThrow(/none\.csv cannot be opened/);
    await expect(root.output('none/out.csv')).rejects.toThrow(/folder of the output none\/out\.csv/);
    await expect(root.existing('-', 'the manifest')).rejects.toThrow(/not stdin/);
    await expect(RootFolder.open(workspace.at('root/m.csv'))).rejects.toThrow(/is no folder/);
  });
});
