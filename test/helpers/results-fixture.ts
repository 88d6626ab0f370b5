import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROMPT_COLUMNS } from '../../src/shared/jobs.js';
import { runPaths, workingPath } from '../../src/writer/output-paths.js';
import { newOutputTable } from '../../src/writer/output-table.js';
import { packOutput } from '../../src/writer/parquet-output.js';
import { writeRunFile } from '../../src/writer/run-file.js';

/** Texts that would do something where they are not shown as text. */
export const HOSTILE = [
  '</script><script>window.hacked=1</script>',
  `<img src=x onerror="window.hacked=2">"'&`,
  'javascript:window.hacked=3',
  '<!--\u001b[31m\u202eabc',
];

export interface ResultsFixture {
  readonly run: string;
  readonly rows?: number;
  /** Cells of the image in the first rows. */
  readonly images?: readonly string[];
  readonly imageRoot?: string;
}

/** Writes an output as a run leaves it, of rows whose prompts say which row they are of, with hostile texts in some; and three failures. */
export async function writeResults(
  folder: string,
  name: string,
  { run, rows = 120, images = [], imageRoot }: ResultsFixture,
): Promise<string> {
  const output = join(folder, name);
  const path = workingPath(output);
  const columns = ['id', 'title', 'image'];
  const about = { path, columns, answerColumns: PROMPT_COLUMNS, delimiter: ',' };
  const table = newOutputTable(about);
  const lines: string[] = [table.header()];
  for (let n = 1; n <= rows; n++) {
    const bad = n % 10 === 0 ? ` ${HOSTILE[(n / 10) % HOSTILE.length] ?? ''}` : '';
    const prompts = [1, 2, 3, 4].map((prompt) => `a Harbour, painted ${n} times (${prompt})${bad} --ar 16:9`);
    const at = new Date(Date.UTC(2026, 0, 1, 0, 0, n)).toISOString();
    const image = images[n - 1] ?? `http://images.test/${n}.jpg`;
    lines.push(table.format([{ cells: [String(n), `Title ${n}${bad}`, image, ...prompts, `sim-${n}`, at] }]));
  }
  await writeFile(path, lines.join(''));
  await packOutput({ ...about, urlColumn: { index: 2, path: [] } }, output);
  const paths = runPaths(output);
  await writeRunFile(paths.runFile, {
    ...{
      version: 1,
      run,
      queue: 'q',
      account: 'a',
      simulator: true,
      urlColumn: 'image',
      imageRoot,
      output,
      open: false,
    },
    ...{
      createdAt: '2026-01-01T00:00:00.000Z',
      spent: { submits: rows + 3, answered: rows, unusable: 0, inputTokens: 0, outputTokens: 0 },
    },
  });
  const failed = [
    'f1,Not this one,http://images.test/f1.jpg,rejected,the API said no,1,sim-f1,\n',
    `f2,Nor this,${HOSTILE[2] ?? ''},invalid-url,"${(HOSTILE[0] ?? '').replaceAll('"', '""')}",0,,\n`,
    'f3,Late,http://images.test/f3.jpg,rejected,no again,1,sim-f3,\n',
  ];
  await writeFile(
    paths.failures,
    `id,title,image,error_code,error,attempts,message_id,answer\n${failed.join('')}`,
  );
  return output;
}
