import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import axe from 'axe-core';
import { type BrowserContext, type Page, chromium } from 'playwright-core';
import { z } from 'zod';

const EXECUTABLE = '/usr/bin/chromium';
const NO_CHROMIUM = `no ${EXECUTABLE} here: the dashboard's tests in a browser do not run (apt-get install chromium)`;
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Whether tests can use a browser here. */
export const chromiumAvailable = existsSync(EXECUTABLE);

if (!chromiumAvailable) {
  if (process.env['BULK_DESCRIBE_REQUIRE_CHROMIUM']) throw new Error(NO_CHROMIUM);
  process.stderr.write(`${NO_CHROMIUM}\n`);
}

export interface TestBrowser {
  /** A window of a browser that nobody has used before. */
  readonly context: BrowserContext;
  close(): Promise<void>;
}

export interface BrowserOptions {
  readonly credentials?: { readonly username: string; readonly password: string };
  readonly colorScheme?: 'light' | 'dark';
  readonly width?: number;
  readonly height?: number;
  /** Where hosts really are: `www.example.com` at `127.0.0.1:8080`. */
  readonly hosts?: Readonly<Record<string, string>>;
}

/** Starts a headless Chromium on a profile of its own. */
export async function startBrowser(options: BrowserOptions = {}): Promise<TestBrowser> {
  const { credentials, colorScheme = 'light', width = 1280, height = 900, hosts = {} } = options;
  const rules = Object.entries(hosts).map(([name, place]) => `MAP ${name} ${place}`);
  const profile = await mkdtemp(join(tmpdir(), 'bulk-describe-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE,
    headless: true,
    args: [...ARGS, ...(rules.length > 0 ? [`--host-resolver-rules=${rules.join(',')}`] : [])],
    viewport: { width, height },
    colorScheme,
    locale: 'en-GB',
    timezoneId: 'UTC',
    ...(credentials !== undefined && { httpCredentials: credentials }),
  });
  return {
    context,
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

const checkedSchema = z.object({
  violations: z.array(
    z.object({ id: z.string(), impact: z.string(), nodes: z.array(z.object({ html: z.string() })) }),
  ),
});

/** What keeps people from using a page, as axe-core finds it: its rules, with the first element that breaks each. */
export async function seriousTroubles(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const { violations } = checkedSchema.parse(await page.evaluate('axe.run()'));
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes[0]?.html ?? ''}`);
}
