"""Look and behaviour of the surfaces of a page, see `page_surface`."""

CSS = """
.surface svg {
  display: block; width: 100%; max-width: 38rem; height: auto;
  background: var(--sheet); border: 1px solid var(--line);
  border-radius: 0.7rem; padding: 0.5rem; margin-top: 0.5rem;
}
.surface figcaption { color: var(--ink); font-weight: 600; }
.surface text { fill: var(--soft); font-size: 13px; }
.surface .mark circle { fill: #1b1f24; stroke: #ffffff; stroke-width: 1.5; }
.surface .mark text {
  fill: #1b1f24; font-weight: 650; paint-order: stroke; stroke: #ffffff;
  stroke-width: 3px; stroke-linejoin: round;
}
.surface .mark { pointer-events: none; }
.surface .at {
  fill: none; stroke: #d1242f; stroke-width: 2.5; pointer-events: none;
}
.surface select {
  font: inherit; color: var(--ink); background: var(--sheet);
  border: 1px solid var(--soft); border-radius: 0.4rem;
  padding: 0.3rem 0.6rem; margin-left: 0.5rem; max-width: 100%;
}
.surface .readout {
  display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; min-height: 1.6em;
  max-width: 38rem; margin: 0.5rem 0; font-size: 0.92rem;
}
.surface .readout b { font-variant-numeric: tabular-nums; }
@media print { .surface .readout { display: none; } }
"""

JS = """
(() => {
'use strict';
const make = (name, text = '') => {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
};

for (const figure of document.querySelectorAll('figure.surface')) {
  const data = JSON.parse(figure.dataset.surface);
  const svg = figure.querySelector('svg');
  const cells = Array.from(svg.querySelectorAll('.cell'));
  const at = svg.querySelector('.at');
  const across = data.x.length;

  const tools = make('div');
  tools.className = 'tools';
  const label = make('label', 'Colours show');
  const choice = make('select');
  for (const view of data.views) choice.append(make('option', view.name));
  label.append(choice);
  tools.append(label);
  svg.before(tools);
  const readout = make('div', 'Point at a cell, or use the arrow keys.');
  readout.className = 'readout';
  readout.setAttribute('role', 'status');
  svg.after(readout);

  choice.addEventListener('change', () => {
    const view = data.views[choice.selectedIndex];
    cells.forEach((cell, i) => {
      const shade = view.shades[i];
      cell.setAttribute('fill', shade === null ? 'none' : data.shades[shade]);
    });
    svg.querySelector('.low').textContent = view.ends[0];
    svg.querySelector('.high').textContent = view.ends[1];
  });

  let now = null;
  const say = (name, value) => {
    const part = make('span', `${name} `);
    part.append(make('b', value));
    return part;
  };
  const show = (i) => {
    now = i;
    for (const name of ['x', 'y']) {
      at.setAttribute(name, cells[i].getAttribute(name));
    }
    at.setAttribute('visibility', 'visible');
    readout.replaceChildren(
      say(data.axes[0], data.x[i % across]),
      say(data.axes[1], data.y[Math.floor(i / across)]),
      ...data.views.map((view) => say(view.name, view.texts[i])),
    );
  };
  const point = (event) => {
    const i = cells.indexOf(event.target);
    if (i >= 0) show(i);
  };
  svg.addEventListener('pointermove', point);
  svg.addEventListener('pointerdown', point);

  svg.setAttribute('tabindex', '0');
  svg.addEventListener('keydown', (event) => {
    const way = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1],
      ArrowDown: [0, -1],
    }[event.key];
    if (!way) return;
    event.preventDefault();
    const middle = Math.floor(cells.length / 2);
    if (now === null) return show(middle);
    const column = (now % across) + way[0];
    const line = Math.floor(now / across) + way[1];
    const inside = column >= 0 && column < across && line >= 0
      && line < data.y.length;
    if (inside) show(line * across + column);
  });
}
})();
"""
