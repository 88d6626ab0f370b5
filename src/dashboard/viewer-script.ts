/**
 * Shows rows: those of one page, as the server has chosen them, or of all rows of a report those that are asked for. What is asked
 * is in the page's address, behind `?` or in a report behind `#`. Values become text, and addresses are checked before they come here.
 */
export const VIEWER_SCRIPT = `
document.addEventListener('DOMContentLoaded', () => {
  document.addEventListener('error', ({ target }) => target.tagName === 'IMG' && target.setAttribute('data-missing', ''), true);
  const data = JSON.parse(document.getElementById('data').textContent);
  const byId = (id) => document.getElementById(id);
  const form = byId('find');
  const asked = () => new URLSearchParams(data.isWhole ? location.hash.slice(1) : location.search);
  const address = (params) => (data.isWhole ? '#' : '?') + params;
  function make(tag, properties, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }
  function chosen(params) {
    const code = params.get('code') ?? '';
    const list = code === '' ? data.described : data.failed;
    if (!data.isWhole) return { list, rows: list.rows, total: list.total };
    const text = (params.get('q') ?? '').trim().toLowerCase();
    const rows = list.rows.filter((row) => (code === '' || code === 'all' || row.code === code)
      && (text === '' || (row.low ??= row.cells.join('\\n').toLowerCase()).includes(text)));
    if (params.get('sort') !== 'written') rows.reverse();
    return { list, rows, total: rows.length };
  }
  function item(row, { columns, shown, id }) {
    const label = row.title ?? row.name;
    const picture = row.thumb === undefined ? []
      : [make('img', { loading: 'lazy', decoding: 'async', referrerPolicy: 'no-referrer', alt: '', src: row.thumb })];
    const thumb = row.link === undefined ? make('span', { className: 'thumb' }, ...picture)
      : make('a', { className: 'thumb', href: row.link, target: '_blank', rel: 'noopener noreferrer', ariaLabel: label }, ...picture);
    const answers = shown.filter((i) => row.cells[i]).map((i) => /^prompt_\\d+$/.test(columns[i])
      ? make('li', { textContent: row.cells[i] })
      : make('li', {}, make('b', { textContent: columns[i] + ' ' }), row.cells[i]));
    const all = make('details', {}, make('summary', { className: 'soft', textContent: 'All columns' }));
    all.addEventListener('toggle', () => all.children.length === 1 && all.append(make('dl', { className: 'cells' },
      ...columns.flatMap((name, i) => [make('dt', { textContent: name }), make('dd', { textContent: row.cells[i] })]))));
    const about = [row.title === undefined ? '' : row.name, row.cells[id] ? 'message ' + row.cells[id] : ''].filter(Boolean).join(', ');
    const told = make('div', { className: 'told' },
      make('div', { className: 'name' }, make('span', { textContent: label }), make('span', { className: 'soft', textContent: row.code ?? 'row ' + row.n })),
      make('div', { className: 'soft file', textContent: about }), make('ol', { className: 'prompts' }, ...answers), all);
    return make('li', { className: 'image' }, thumb, told);
  }
  function draw() {
    const params = asked();
    for (const name of ['q', 'code', 'sort']) if (form.elements[name] !== document.activeElement) form.elements[name].value = params.get(name) ?? '';
    const { list, rows, total } = chosen(params);
    const last = Math.max(1, Math.ceil(total / data.perPage));
    const page = Math.min(last, Math.max(1, Math.floor(Number(params.get('page'))) || 1));
    const first = (page - 1) * data.perPage;
    byId('rows').replaceChildren(...(data.isWhole ? rows.slice(first, first + data.perPage) : rows).map((row) => item(row, list)));
    const range = (first + 1).toLocaleString('en-US') + ' to ' + Math.min(total, first + data.perPage).toLocaleString('en-US');
    byId('count').textContent = data.searched !== undefined ? 'Searching, ' + Math.floor(100 * data.searched) + ' % so far'
      : total === 0 ? 'Nothing found' : range + ' of ' + total.toLocaleString('en-US');
    const link = (id, name, to) => {
      const there = new URLSearchParams(params);
      there.set('page', to);
      return to < 1 || to > last ? make('span', { className: 'soft', textContent: name }) : make('a', { id, textContent: name, href: address(there) });
    };
    byId('pages').replaceChildren(link('previous', '← Previous', page - 1), link('next', 'Next →', page + 1));
  }
  const wanted = () => new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ''));
  form.addEventListener('submit', (event) => { event.preventDefault(); location.assign(address(wanted())); });
  form.addEventListener('change', ({ target }) => target.tagName === 'SELECT' && form.requestSubmit());
  if (data.isWhole) form.addEventListener('input', ({ target }) => target.name === 'q' && location.replace(address(wanted())));
  addEventListener('hashchange', () => { draw(); scrollTo(0, 0); });
  addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { if (event.key === 'Escape') event.target.blur(); return; }
    if (event.key === '/') { event.preventDefault(); form.elements.q.focus(); }
    if (event.key === 'n' || event.key === 'ArrowRight') byId('next')?.click();
    if (event.key === 'p' || event.key === 'ArrowLeft') byId('previous')?.click();
  });
  draw();
  if (data.searched !== undefined) setTimeout(() => location.reload(), 1000);
});
`;
