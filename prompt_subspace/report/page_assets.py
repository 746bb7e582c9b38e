"""Look and behaviour of a page: the CSS and JavaScript that it carries.

Without JavaScript all is readable; with it, heads of columns become buttons
that sort, long tables get a filter, pictures open at full size, and surfaces
tell their values.
"""

from prompt_subspace.report import page_surface_assets

_CSS = """
:root {
  color-scheme: light dark;
  --ground: #fafafa; --sheet: #ffffff; --ink: #1b1f24; --soft: #57606c;
  --line: #dde1e6; --accent: #0a5aa8; --shade: #f1f3f6;
  --best: #dff2e5; --best-ink: #0b5527;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --sheet: #1b1f25; --ink: #e7eaee; --soft: #a7b0bc;
    --line: #313842; --accent: #86bdf7; --shade: #232931;
    --best: #173a29; --best-ink: #9be5b8;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word;
}
header, main {
  max-width: 59rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2.5rem);
}
header { padding-top: clamp(1.5rem, 5vw, 3.5rem); }
main { padding-bottom: 4rem; }
h1 {
  font-size: clamp(1.6rem, 4.5vw, 2.4rem); line-height: 1.15; margin: 0;
  letter-spacing: -0.015em; text-wrap: balance;
}
h2 {
  font-size: 1.35rem; line-height: 1.25; margin: 3.2rem 0 0.6rem;
  padding-top: 1rem; border-top: 1px solid var(--line);
}
p { max-width: 44rem; margin: 0.6rem 0; }
.lead { font-size: 1.125rem; color: var(--soft); }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

.headline {
  display: grid; gap: 0.9rem; margin: 2rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 12rem), 1fr));
}
.headline > div {
  background: var(--sheet); border: 1px solid var(--line);
  border-radius: 0.7rem; padding: 0.9rem 1.1rem; row-gap: 0;
  display: grid; grid-row: span 3; grid-template-rows: subgrid;
}
.headline dt { align-self: end; color: var(--soft); font-size: 0.95rem; }
.headline dd { margin: 0; }
.headline .value {
  font-size: clamp(1.6rem, 3.6vw, 2rem); line-height: 1.2; font-weight: 650;
  margin: 0.15rem 0 0.2rem;
  letter-spacing: -0.02em; font-variant-numeric: tabular-nums;
}
.headline small { font-size: 0.62em; font-weight: 600; letter-spacing: 0; }
.headline .note { color: var(--soft); font-size: 0.875rem; }
nav ul {
  display: flex; flex-wrap: wrap; gap: 0.3rem 1.3rem; list-style: none;
  margin: 1.6rem 0 0; padding: 0; font-size: 0.95rem;
}
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }

figure { margin: 1.4rem 0; }
figcaption { color: var(--soft); font-size: 0.9rem; max-width: 44rem; }
.tabular figcaption { color: var(--ink); font-weight: 600; }
.tools {
  display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem 0.8rem;
  margin: 0.5rem 0; font-size: 0.875rem; color: var(--soft);
}
.tools input {
  font: inherit; color: var(--ink); background: var(--sheet);
  border: 1px solid var(--soft); border-radius: 0.4rem;
  padding: 0.3rem 0.6rem; margin-left: 0.5rem; width: 14rem; max-width: 60vw;
}
.scroll {
  overflow-x: auto; margin-top: 0.5rem; background: var(--sheet);
  border: 1px solid var(--line); border-radius: 0.7rem; width: fit-content;
  max-width: 100%;
}
table { border-collapse: separate; border-spacing: 0; font-size: 0.92rem; }
th, td {
  padding: 0.42rem 0.85rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); vertical-align: baseline;
}
td.text { white-space: normal; min-width: 6rem; max-width: 30rem; }
tbody:last-child tr:last-child > *, tfoot tr:last-child > * {
  border-bottom: 0;
}
thead th {
  color: var(--soft); font-weight: 600; background: var(--shade);
  white-space: normal; vertical-align: bottom; max-width: 10rem;
  text-wrap: balance;
  position: sticky; top: 0; z-index: 2;
}
tbody th, tfoot th { font-weight: 500; }
tr > :first-child {
  position: sticky; left: 0; background: var(--sheet); z-index: 1;
}
thead tr > :first-child { background: var(--shade); z-index: 3; }
[data-filter] .scroll { overflow-y: auto; max-height: min(34rem, 80vh); }
tbody tr:hover > * { background: var(--shade); }
tfoot td, tfoot th { font-weight: 600; }
tfoot tr:first-child > * { border-top: 2px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.none { color: var(--soft); }
td.best strong {
  background: var(--best); color: var(--best-ink); font-weight: 650;
  border-radius: 0.3rem; padding: 0.08rem 0.38rem; margin-right: -0.38rem;
}
thead:has(button) th { padding: 0; }
thead th button {
  font: inherit; color: inherit; background: none; border: 0; width: 100%;
  padding: 0.42rem 0.85rem; text-align: inherit; cursor: pointer;
  position: relative; vertical-align: bottom;
}
thead th button:hover { color: var(--accent); }
thead th button:focus-visible { outline-offset: -2px; border-radius: 0.4rem; }
thead th button::after {
  position: absolute; right: 0.1rem; bottom: 0.42rem; width: 0.7rem;
  text-align: center; font-size: 0.85em;
}
th[aria-sort] button { color: var(--accent); }
th[aria-sort="ascending"] button::after { content: "\\2191"; }
th[aria-sort="descending"] button::after { content: "\\2193"; }

.picture img {
  display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: 0.7rem; padding: 0.5rem;
}
.picture figcaption { margin-top: 0.5rem; }
.picture button {
  display: block; max-width: 100%; padding: 0; border: 0; background: none;
  cursor: zoom-in; border-radius: 0.7rem;
}
dialog {
  border: 0; padding: 0; background: #ffffff; border-radius: 0.5rem;
  max-width: 96vw; max-height: 96vh; overflow: auto; cursor: zoom-out;
}
dialog::backdrop { background: rgb(0 0 0 / 0.75); }
dialog img { display: block; max-width: none; }
dialog form { position: sticky; top: 0; left: 0; background: #ffffff; }
dialog button {
  font: inherit; margin: 0.5rem; padding: 0.3rem 0.8rem; color: #1b1f24;
  background: #ffffff; border: 1px solid #57606c; border-radius: 0.4rem;
}

details {
  background: var(--sheet); border: 1px solid var(--line);
  border-radius: 0.7rem; margin: 0.6rem 0; padding: 0 1.1rem;
}
summary { cursor: pointer; padding: 0.65rem 0; font-weight: 600; }
details[open] { padding-bottom: 0.8rem; }
details details { margin: 0.4rem 0; border-radius: 0.5rem; }
details details summary { font-weight: 500; padding: 0.35rem 0; }
details figure { margin: 0.4rem 0 1rem; }
.record {
  display: grid; grid-template-columns: minmax(6rem, max-content) 1fr;
  gap: 0.2rem 1.4rem; margin: 0.6rem 0; font-size: 0.9rem;
}
.record dt { color: var(--soft); }
.record dd { margin: 0; min-width: 0; white-space: pre-wrap; }
.record .record { margin: 0; }
@media (max-width: 36rem) {
  .record { grid-template-columns: 1fr; gap: 0; }
  .record dd { margin: 0 0 0.4rem; }
  .record .record { padding-left: 0.9rem; border-left: 2px solid var(--line); }
  details { padding: 0 0.8rem; }
  th, td, thead th button { padding: 0.38rem 0.6rem; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print {
  :root {
    --ground: #ffffff; --sheet: #ffffff; --ink: #000000; --soft: #444444;
    --line: #bbbbbb; --accent: #000000; --shade: #ffffff;
    --best: #ffffff; --best-ink: #000000;
  }
  body { font-size: 10pt; }
  header, main { max-width: none; padding: 0; }
  nav, .tools { display: none; }
  [data-filter] .scroll, .scroll {
    overflow: visible; max-height: none; border-radius: 0;
  }
  table { font-size: 8pt; }
  th, td, thead th button { padding: 0.2rem 0.4rem; }
  tr > :first-child, thead th { position: static; }
  h2 { break-after: avoid; }
  tr, .picture, .headline > div { break-inside: avoid; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""

_JS = """
(() => {
'use strict';
const make = (name, text = '') => {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
};
const collator = new Intl.Collator(document.documentElement.lang, {
  numeric: true,
});

// The key of a row in a column, null where it is missing.
const keyOf = (row, column, numeric) => {
  const cell = row.cells[column];
  if (cell.classList.contains('none')) return null;
  return numeric ? Number(cell.dataset.value) : cell.textContent;
};

const sort = (table, head) => {
  const numeric = head.classList.contains('n');
  const before = head.getAttribute('aria-sort');
  // Of numbers the highest is looked for, of names the first.
  const first = numeric ? 'descending' : 'ascending';
  const second = numeric ? 'ascending' : 'descending';
  const way = before === first ? second : first;
  const sign = way === 'ascending' ? 1 : -1;
  const rows = Array.from(table.tBodies[0].rows, (row) => [
    keyOf(row, head.cellIndex, numeric),
    row,
  ]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (a === b) return 0;
    return sign * (numeric ? (a < b ? -1 : 1) : collator.compare(a, b));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', way);
};

for (const table of document.querySelectorAll('table')) {
  for (const head of table.tHead.rows[0].cells) {
    const button = make('button', head.textContent);
    button.type = 'button';
    button.title = 'Sort by this column';
    button.addEventListener('click', () => sort(table, head));
    head.replaceChildren(button);
  }
}

for (const figure of document.querySelectorAll('figure[data-filter]')) {
  const rows = Array.from(figure.querySelector('tbody').rows);
  const tools = make('div');
  tools.className = 'tools';
  const label = make('label', 'Filter rows');
  const input = make('input');
  input.type = 'search';
  const count = make('output', `${rows.length} rows`);
  label.append(input);
  tools.append(label, count);
  figure.querySelector('.scroll').before(tools);
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase().split(/\\s+/);
    let shown = 0;
    for (const row of rows) {
      const texts = Array.from(row.cells, (cell) => cell.textContent);
      const text = texts.join(' ').toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent =
      shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length}`;
  });
}

const dialog = make('dialog');
const large = make('img');
const form = make('form');
form.method = 'dialog';
form.append(make('button', 'Close'));
dialog.append(form, large);
dialog.addEventListener('click', () => dialog.close());
document.body.append(dialog);
for (const image of document.querySelectorAll('.picture img')) {
  const button = make('button');
  button.type = 'button';
  button.setAttribute('aria-label', `Enlarge: ${image.alt}`);
  image.replaceWith(button);
  button.append(image);
  button.addEventListener('click', () => {
    large.src = image.src;
    large.alt = image.alt;
    // Twice the size on the page, so that a phone and a screen both gain.
    large.width = Math.min(2 * image.clientWidth, image.naturalWidth);
    large.width = Math.max(large.width, image.getAttribute('width'));
    dialog.showModal();
  });
}

let closed = [];
addEventListener('beforeprint', () => {
  closed = Array.from(document.querySelectorAll('details:not([open])'));
  for (const one of closed) one.open = true;
});
addEventListener('afterprint', () => {
  for (const one of closed) one.open = false;
});
})();
"""

CSS = _CSS + page_surface_assets.CSS
JS = _JS + page_surface_assets.JS
