import { createWriteStream } from 'node:fs';
import { once } from 'node:events';

/**
 * Writes a manifest of `rows` rows.
 * @param images how many different images they show
 */
export async function writeManifest(path: string, rows: number, images = rows): Promise<string> {
  const file = createWriteStream(path);
  file.write('id,title,image\n');
  for (let row = 0; row < rows; row++) {
    const line = `${row},"Painting, number ${row}",https://images.example.org/collection/${row % images}/full.jpg\n`;
    if (!file.write(line)) await once(file, 'drain');
  }
  file.end();
  await once(file, 'finish');
  return path;
}
