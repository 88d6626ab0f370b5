import { visible } from '../texts.js';
import { SCRIPT, STYLE } from './assets.js';

/** Markup that is safe to send: only `html` makes it. */
export class Html {
  constructor(readonly markup: string) {}
}

/** What may stand in a template: text (shown as text), markup, lists of both, or nothing. */
type HtmlValue = string | number | Html | undefined | false | readonly HtmlValue[];

/**
 * Makes markup of a template. Whatever is put into it is shown as text, in elements and in quoted attributes alike,
 * unless it was made by `html` itself.
 *
 * Hazard: an unquoted attribute, a `<script>` or a `<style>` is no place for a value; a URL is checked before, see
 * `httpUrl`.
 */
export function html(parts: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  return new Html(parts.map((part, i) => (i === 0 ? part : markupOf(values[i - 1]) + part)).join(''));
}

function markupOf(value: HtmlValue): string {
  if (value === undefined || value === false) return '';
  if (value instanceof Html) return value.markup;
  if (typeof value === 'object') return value.map(markupOf).join('');
  return escapeHtml(visible(String(value)));
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
}

/** A page that can be sent. */
export interface Page {
  readonly status: number;
  /** @param nonce lets the page's own script and style through its content security policy */
  render(nonce: string): string;
}

/** Where Bull Board is. */
export const BOARD_PATH = '/board';

/** Puts a page's main part between head and foot. */
export function layout(title: string, main: Html, status = 200): Page {
  return {
    status,
    render: (nonce) =>
      html`<!doctype html>
        <html lang="en">
          <head>
            <meta charset="utf-8" />
            <meta name="viewport" content="width=device-width, initial-scale=1" />
            <meta name="color-scheme" content="light dark" />
            <meta name="robots" content="noindex" />
            <title>${title} · bulk-describe</title>
            <link rel="icon" href="data:," />
            <style nonce="${nonce}">
              ${new Html(STYLE)}
            </style>
            <script nonce="${nonce}">
              ${new Html(SCRIPT)};
            </script>
          </head>
          <body>
            <header>
              <a class="brand" href="/runs">bulk-describe</a>
              <nav>
                <a href="/runs">Runs</a><a href="${BOARD_PATH}">Board</a><a href="/metrics">Metrics</a>
              </nav>
            </header>
            <p id="stale" hidden>No answer from the dashboard: what you see is not new any more.</p>
            <main>${main}</main>
          </body>
        </html> `.markup,
  };
}
