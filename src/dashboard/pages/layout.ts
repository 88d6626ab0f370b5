import { Html, html } from './html.js';
import { SCRIPT } from './script.js';
import { STYLE } from './style.js';

/** A page that can be sent. */
export interface Page {
  /** 200 when it is not given. */
  readonly status?: number;
  /** @param nonce lets the page's own script and style through its content security policy */
  render(nonce: string): string;
}

export interface PageParts {
  readonly title: string;
  readonly main: Html;
  readonly boardPath: string;
  readonly status?: number;
}

/** Puts a page's main part between head and foot. */
export function layout({ title, main, boardPath, status }: PageParts): Page {
  return {
    ...(status !== undefined && { status }),
    render: (nonce) =>
      html`<!doctype html>
        <html lang="en">
          <head>
            <meta charset="utf-8" />
            <meta name="viewport" content="width=device-width, initial-scale=1" />
            <meta name="color-scheme" content="light dark" />
            <meta name="robots" content="noindex" />
            <title>${title}</title>
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
                <a href="/runs">Runs</a><a href="${boardPath}">Board</a><a href="/metrics">Metrics</a>
              </nav>
            </header>
            <p id="stale" hidden>No answer from the dashboard: what you see is not new any more.</p>
            <main>${main}</main>
          </body>
        </html> `.markup,
  };
}
