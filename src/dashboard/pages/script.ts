/**
 * Keeps a page fresh: fetches it again every other second and puts in what has changed. An element that is the same
 * stays the same, so that nothing flickers, no image is loaded again, and what somebody has selected stays selected.
 */
export const SCRIPT = `
(() => {
  // An image that cannot be loaded gives way to the words behind it, and stays so.
  document.addEventListener('error', ({ target }) => target.tagName === 'IMG' && target.setAttribute('data-missing', ''), true);
  const isKeyed = (node) => node.nodeType === 1 && node.dataset.key !== undefined;
  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== 1 || fresh.nodeType !== 1 || old.tagName !== fresh.tagName) { old.replaceWith(fresh); return; }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== 'data-missing') old.removeAttribute(name);
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
      // The style and the script are here already, and have another nonce there.
      const text = (await answer.text()).replace(/<(style|script)\\b[^]*?<\\/\\1>/g, '');
      const page = new DOMParser().parseFromString(text, 'text/html');
      const main = page.querySelector('main');
      if (main) patch(document.querySelector('main'), document.adoptNode(main));
      document.title = page.title || document.title;
      stale.hidden = true;
    } catch { stale.hidden = false; }
  }
  (async () => { for (;;) { await new Promise((next) => setTimeout(next, 2000)); await refresh(); } })();
})();
`;
