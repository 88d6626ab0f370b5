import { hash } from 'node:crypto';
import { visible } from './texts.js';
import { VIEWER_SCRIPT } from './viewer-script.js';

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

/** A name of a file, which a narrow window breaks between its parts where it has to. */
export function breakable(name: string): Html {
  return html`${name.split(/(?<=[._/-])/).map((part) => html`${part}<wbr />`)}`;
}

/** A number with its name, in a `<dl class="facts">`. */
export function fact(name: string, value: string): Html {
  return html`<div>
    <dt>${name}</dt>
    <dd>${value}</dd>
  </div>`;
}

export interface Page {
  readonly status: number;
  readonly text: string;
}

export const BOARD_PATH = '/board';

/**
 * A button that does something, see `actions.ts`.
 * @param id of what it is about
 */
export function actionButton(action: string, id: string, label: string): Html {
  return html`<form method="post" action="/do/${action}/${encodeURIComponent(id)}">
    <button>${label}</button>
  </form>`;
}

/**
 * Puts a page's main part between head and foot.
 * @param kind a page that refreshes itself, one that shows results, or the latter as a file of its own
 */
export function layout(
  title: string,
  main: Html,
  status = 200,
  kind: 'page' | 'results' | 'file' = 'page',
): Page {
  const script = kind === 'page' ? SCRIPT : VIEWER_SCRIPT;
  // Images on this machine are beside it.
  const allowed = { 'default-src': "'none'", ...PAGE_SOURCES, 'img-src': '* data: file:' };
  const sources = Object.entries(allowed).map((source) => source.join(' '));
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        ${kind === 'file' && html`<meta http-equiv="content-security-policy" content="${sources.join('; ')}" />`}
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="robots" content="noindex" />
        <meta name="generator" content="bulk-describe" />
        <title>${title} · bulk-describe</title>
        <link rel="icon" href="data:," />
        ${new Html(`<style>${STYLE}</style><script>${script}</script>`)}
      </head>
      <body>
        ${
          kind !== 'file' &&
          html`<header>
              <a class="brand" href="/runs">bulk-describe</a>
              <nav>
                <a href="/runs">Runs</a><a href="${BOARD_PATH}">Board</a><a href="/metrics">Metrics</a>
              </nav>
            </header>
            <p id="stale" hidden>No answer from the dashboard: what you see is not new any more.</p>`
        }
        <main>${main}</main>
      </body>
    </html> `;
  return { status, text: page.markup };
}

/** The look of the pages; light or dark as the reader's system is. */
const STYLE = `
:root {
  --ground: #f6f7f9; --paper: #fff; --ink: #1b2430; --soft: #5d6b7d; --line: #dfe4ea; --accent: #1a5fd0;
  --good: #1a7f4b; --copied: #57a6d9; --bad: #c2372f; --wait: #e4e8ed; --mark: #fff4d6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #10151c; --paper: #18202a; --ink: #e4eaf1; --soft: #93a1b2; --line: #2a3542; --accent: #6ea8fe;
    --good: #3fb27f; --copied: #4d93c4; --bad: #f0736a; --wait: #2a3542; --mark: #3b3213;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
header { display: flex; gap: 1.5rem; align-items: baseline; padding: .8rem clamp(1rem, 4vw, 2.5rem); background: var(--paper);
  border-bottom: 1px solid var(--line); position: sticky; top: 0; z-index: 1; }
.brand { font-weight: 650; color: var(--ink); }
nav { display: flex; gap: 1.2rem; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; }
h1 { font-size: 1.45rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .8rem; }
#stale { margin: 0; padding: .5rem 1rem; text-align: center; background: var(--mark); }
.soft { color: var(--soft); }
.title { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: center; }
.state { font-size: .78rem; font-weight: 600; padding: .1rem .6rem; border-radius: 1rem; border: 1px solid currentColor; }
.running { color: var(--accent); } .ended { color: var(--good); } .silent, .troubled { color: var(--bad); }
.card { display: block; background: var(--paper); border: 1px solid var(--line); border-radius: .7rem; padding: 1.1rem 1.3rem;
  margin-bottom: 1rem; }
.card h2 { margin: 0; font-size: 1.08rem; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem 2.2rem; margin: 1rem 0 0; }
.facts div { min-width: 4.5rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-size: 1.12rem; font-variant-numeric: tabular-nums; font-weight: 550; }
.facts .failed dd.some { color: var(--bad); }
.bar { display: block; width: 100%; height: .7rem; border-radius: .35rem; margin: .9rem 0 0; background: var(--wait); }
.bar .described { fill: var(--good); } .bar .copied { fill: var(--copied); } .bar .failed { fill: var(--bad); }
.note { margin: .8rem 0 0; padding: .5rem .8rem; border-radius: .5rem; background: var(--mark); overflow-wrap: anywhere; }
.note + .card { margin-top: 1rem; }
.card h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.plain { margin: .5rem 0 0; padding-left: 1.15rem; font-size: .9rem; overflow-wrap: anywhere; }
.unseen { position: absolute; white-space: nowrap; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.said { margin: 0 0 1rem; }
.where { margin: .5rem 0 0; color: var(--soft); font-size: .86rem; overflow-wrap: anywhere; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 33rem), 1fr)); gap: 1rem; padding: 0; margin: 0;
  list-style: none; }
.image { display: grid; grid-template-columns: 9.5rem minmax(0, 1fr); background: var(--paper); border: 1px solid var(--line);
  border-radius: .7rem; overflow: hidden; }
.thumb { display: block; position: relative; background: var(--wait); min-height: 9.5rem; }
.thumb img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; color: transparent; font-size: 0; }
img[data-missing] { visibility: hidden; }
.thumb::before { content: 'no preview'; position: absolute; inset: 0; display: grid; place-items: center; color: var(--soft);
  font-size: .8rem; }
.told { padding: .75rem 1rem .85rem; min-width: 0; }
.told .name { display: flex; gap: .7rem; justify-content: space-between; font-size: .84rem; margin-bottom: .35rem; }
.told .file { font-size: .8rem; margin: -.3rem 0 .35rem; overflow-wrap: anywhere; }
.told .name > :first-child { font-weight: 600; overflow-wrap: anywhere; }
.told .name > :last-child { white-space: nowrap; }
ol.prompts { margin: 0; padding-left: 1.15rem; font-size: .86rem; line-height: 1.42; }
ol.prompts li { margin: .18rem 0; overflow-wrap: anywhere; white-space: pre-wrap; unicode-bidi: isolate; display: list-item; }
ol.prompts li::marker { color: var(--soft); }
table { width: 100%; border-collapse: separate; border-spacing: 0; background: var(--paper); border: 1px solid var(--line); border-radius: .7rem;
  overflow: hidden; font-size: .88rem; }
td { padding: .5rem .9rem; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
tr:first-child td { border-top: 0; }
th { padding: .5rem .9rem; text-align: left; color: var(--soft); font-weight: 500; }
.failures td:first-child { min-width: 7.5em; }
.failures td:last-child { white-space: nowrap; text-align: right; }
summary { cursor: pointer; }
pre { margin: .5rem 0; font: .82rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 20rem; overflow: auto; }
.actions { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: 1rem; }
button { font: inherit; font-size: .86rem; color: var(--ink); background: var(--paper); border: 1px solid var(--soft); border-radius: .45rem;
  padding: .25rem .8rem; cursor: pointer; }
button:hover { border-color: var(--accent); color: var(--accent); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
.chart { margin: 0; padding: .8rem 1rem; background: var(--paper); border: 1px solid var(--line); border-radius: .7rem; min-width: 0; }
.chart figcaption { font-size: .92rem; font-weight: 600; }
.chart svg { display: block; width: 100%; height: auto; margin-top: .4rem; }
.chart text { fill: var(--soft); font-size: 11px; }
.chart .grid { stroke: var(--line); }
.chart .described { fill: var(--good); } .chart .failed { fill: var(--bad); } .chart .plain { fill: var(--copied); }
.chart .line { fill: none; stroke: var(--accent); stroke-width: 2; }
.codes { list-style: none; margin: .5rem 0 0; padding: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
.codes li { margin-bottom: .5rem; }
.codes .bar { margin-top: .15rem; height: .45rem; }
.codes [aria-current] { font-weight: 700; text-decoration: underline; }
#find { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin-top: 1.2rem; }
#find label { display: grid; font-size: .8rem; color: var(--soft); max-width: 100%; }
#find label:first-child { flex: 1 1 14rem; }
#find input, #find select { font: inherit; font-size: .92rem; color: var(--ink); background: var(--paper); border: 1px solid var(--soft);
  border-radius: .45rem; padding: .25rem .5rem; width: 100%; }
#count { margin: 1rem 0 .6rem; font-variant-numeric: tabular-nums; }
#pages { justify-content: center; margin: 1.4rem 0 0; }
.file { font-size: .82rem; overflow-wrap: anywhere; }
summary.soft { font-size: .86rem; }
.cells { margin: .4rem 0 0; font-size: .82rem; }
.cells dt { color: var(--soft); }
.cells dd { margin: 0 0 .4rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.keys { text-align: center; font-size: .82rem; }
kbd { font: .92em ui-monospace, monospace; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.empty { text-align: center; padding: 4rem 1rem; color: var(--soft); }
code { font: .92em ui-monospace, monospace; }
@media (max-width: 34rem) {
  .image { grid-template-columns: 1fr; }
  .thumb { min-height: 11rem; }
  .stacked tr, .stacked td, .failures tr, .failures td { display: block; border-top: 0; }
  .failures td:last-child { text-align: left; }
  .failures tr + tr, .stacked tr + tr { border-top: 1px solid var(--line); }
}
`;

/**
 * Keeps a page fresh: fetches it again every other second and puts in what has changed. An element that is the same
 * stays the same, so that nothing flickers, no image is loaded again, and what somebody has selected or opened stays so.
 */
const SCRIPT = `
(() => {
  // An image that cannot be loaded gives way to the words behind it, and stays so.
  document.addEventListener('error', ({ target }) => target.tagName === 'IMG' && target.setAttribute('data-missing', ''), true);
  const isKeyed = (node) => node.nodeType === 1 && node.dataset.key !== undefined;
  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== 1 || fresh.nodeType !== 1 || old.tagName !== fresh.tagName) { old.replaceWith(fresh); return; }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== 'data-missing' && name !== 'open') old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) { old.setAttribute(name, value); old.removeAttribute('data-missing'); }
    patchChildren(old, [...fresh.childNodes]);
  }
  function patchChildren(parent, fresh) {
    const known = new Map([...parent.children].filter(isKeyed).map((node) => [node.dataset.key, node]));
    let place = parent.firstChild;
    for (const next of fresh) {
      const same = isKeyed(next) ? known.get(next.dataset.key) : undefined;
      if (same) {
        if (same === place) place = place.nextSibling; else parent.insertBefore(same, place);
        patch(same, next);
      } else if (place && !isKeyed(place) && !isKeyed(next)) {
        const after = place.nextSibling;
        patch(place, next);
        place = after;
      } else parent.insertBefore(next, place);
    }
    while (place) { const after = place.nextSibling; place.remove(); place = after; }
  }
  async function refresh() {
    if (document.hidden) return;
    const stale = document.getElementById('stale');
    try {
      const answer = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(8000) });
      if (answer.status >= 500) throw new Error('no answer');
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const main = page.querySelector('main');
      if (main) patch(document.querySelector('main'), document.adoptNode(main));
      document.title = page.title || document.title;
      stale.hidden = true;
    } catch { stale.hidden = false; }
  }
  (async () => { for (;;) { await new Promise((next) => setTimeout(next, 2000)); await refresh(); } })();
})();
`;

/** What a browser may do with a page: run one of the scripts with the one style, and show images from wherever the manifest says. */
export const PAGE_SOURCES = {
  'img-src': '* data:',
  'style-src': sourceOf(STYLE),
  'script-src': `${sourceOf(SCRIPT)} ${sourceOf(VIEWER_SCRIPT)}`,
  'connect-src': "'self'",
};

function sourceOf(text: string): string {
  return `'sha256-${hash('sha256', text, 'base64')}'`;
}
