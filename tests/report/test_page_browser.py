"""Pages in a browser: sorting, filtering, enlarging, and what may run."""

import html
import json
import re
import shutil
import subprocess

import pytest

from prompt_subspace.report import page, plots
from prompt_subspace.report.page import Page, Picture, Section, Table
from prompt_subspace.report.page_surface import SHADES, Surface

FLAGS = (
  'headless no-sandbox disable-gpu disable-quic no-first-run '
  'disable-background-networking disable-component-update disable-sync '
  'dump-dom virtual-time-budget=2000'
)


def one(content):
  return Page('Title', 'Lead.', [], [Section('S', '', [content])])


@pytest.fixture
def open_file(tmp_path):
  """Opens a file in Chromium; returns its title after all scripts ran."""
  program = shutil.which('chromium')
  if program is None:
    pytest.skip('needs chromium, which is not installed')

  def run(path):
    command = [program, *[f'--{flag}' for flag in FLAGS.split()]]
    command += [f'--user-data-dir={tmp_path / "profile"}', path.as_uri()]
    found = subprocess.run(
      command, capture_output=True, text=True, timeout=120, check=True
    )
    title = re.search('<title>(.*?)</title>', found.stdout, re.DOTALL)[1]
    return html.unescape(title)

  return run


@pytest.fixture
def browse(open_file, tmp_path):
  """Opens a page with a script, which ends with `say(value)`; the value."""

  def run(shown, script):
    # the page allows no script but its own
    text, swaps = re.subn(
      r"'sha256-[^']*'", "'unsafe-inline'", page.render(shown), count=1
    )
    assert swaps == 1
    say = 'const say = (v) => { document.title = JSON.stringify(v); };'
    script = f'<script>{say}\n{script}</script></body>'
    path = tmp_path / 'page.html'
    path.write_text(text.replace('</body>', script), encoding='utf-8')
    return json.loads(open_file(path))

  return run


NAMES = ['b10', 'a', 'B9', None, 'c']
SCORES = [9.0, None, -3.0, 1e-05, 100.0]


def test_heads_of_columns_sort(browse):
  grid = [['name', 'score'], *zip(NAMES, SCORES, strict=True), ['mean', 0]]
  found = browse(
    one(Table('t', grid, foot=1)),
    """
    const heads = document.querySelectorAll('thead th');
    const look = () => ({
      names: Array.from(document.querySelectorAll('tbody tr'),
        (row) => row.cells[0].textContent),
      sorts: Array.from(heads, (head) => head.getAttribute('aria-sort')),
      last: document.querySelector('table').rows[6].textContent,
    });
    const seen = [look()];
    for (const i of [1, 1, 0, 0]) {
      heads[i].querySelector('button').click();
      seen.push(look());
    }
    heads[1].querySelector('button').focus();
    seen.push(document.activeElement.textContent);
    say(seen);
    """,
  )
  given, down, up, first, last, focused = found
  assert given['names'] == ['b10', 'a', 'B9', '–', 'c']
  assert given['sorts'] == [None, None]
  # numbers as numbers, the highest first, the missing last both ways
  assert down['names'] == ['c', 'b10', '–', 'B9', 'a']
  assert down['sorts'] == [None, 'descending']
  assert up['names'] == ['B9', '–', 'b10', 'c', 'a']
  assert up['sorts'] == [None, 'ascending']
  # names as people order them: B9 before b10
  assert first['names'] == ['a', 'B9', 'b10', 'c', '–']
  assert first['sorts'] == ['ascending', None]
  assert last['names'] == ['c', 'b10', 'B9', 'a', '–']
  assert {look['last'] for look in found[:5]} == {'mean0'}
  assert focused == 'score'


def test_surfaces_tell_their_values(browse):
  share = [[0.0, 1.0, 2.0], [3.0, 4.0, float('nan')]]
  score = [[50.0, 40.0, 30.0], [20.0, 10.0, 0.0]]
  views = {'share': share, 'score': score}
  found = browse(
    one(Surface('s', (-1.0, 0.0, 1.0), (0.0, 0.5), views, {'a': (0.0, 0.0)})),
    """
    const svg = document.querySelector('.surface svg');
    const cells = svg.querySelectorAll('.cell');
    const readout = document.querySelector('.readout');
    const seen = [];
    const look = () => {
      const parts = Array.from(readout.children, (part) => part.textContent);
      const at = svg.querySelector('.at');
      seen.push([parts, at.getAttribute('x'), at.getAttribute('y')]);
    };
    const send = (target, event) => { target.dispatchEvent(event); look(); };
    const bubbles = true;
    send(cells[5], new PointerEvent('pointermove', { bubbles }));
    for (const key of ['ArrowRight', 'ArrowDown', 'ArrowLeft']) {
      send(svg, new KeyboardEvent('keydown', { key, bubbles }));
    }
    const choice = document.querySelector('.surface select');
    choice.value = 'score';
    choice.dispatchEvent(new Event('change'));
    const fills = Array.from(cells, (cell) => cell.getAttribute('fill'));
    const ends = ['low', 'high'].map((n) => svg.querySelector(`.${n}`));
    const places = Array.from(cells, (cell) => cell.getAttribute('x'));
    say([seen, fills, ends.map((end) => end.textContent), places]);
    """,
  )
  seen, fills, ends, places = found
  corner = ['u 1', 'v 0.5', 'share –', 'score 0.0']
  # there is nothing to the right of it
  assert [parts for parts, _, _ in seen[:2]] == [corner, corner]
  assert seen[2][0] == ['u 1', 'v 0', 'share 2.0', 'score 30.0']
  assert seen[3][0] == ['u 0', 'v 0', 'share 1.0', 'score 40.0']
  assert [x for _, x, _ in seen] == [places[i] for i in (5, 5, 2, 1)]
  assert seen[2][2] == seen[3][2] != seen[1][2]
  assert fills[0] == SHADES[-1] and fills[5] == SHADES[0]
  assert ends == ['0.0', '50.0']


def test_long_tables_can_be_filtered(browse):
  grid = [['source', 'target'], *[[f's{i}', f't{i % 3}'] for i in range(15)]]
  found = browse(
    one(Table('t', grid)),
    """
    const input = document.querySelector('input[type=search]');
    const seen = [];
    for (const text of ['T1 s1', '  ', 'nothing']) {
      input.value = text;
      input.dispatchEvent(new Event('input'));
      const rows = document.querySelectorAll('tbody tr:not([hidden])');
      const shown = Array.from(rows, (row) => row.cells[0].textContent);
      seen.push([shown, document.querySelector('output').textContent]);
    }
    say(seen);
    """,
  )
  assert found[0] == [['s1', 's10', 's13'], '3 of 15']
  assert (len(found[1][0]), found[1][1]) == (15, '15 rows')
  assert found[2] == [[], '0 of 15']


def test_pictures_can_be_enlarged(browse):
  figure = plots.bars(['a'], {'s': ([1], None)}, 'y', 't')
  found = browse(
    one(Picture(plots.encode(figure), 'bars')),
    """
    const button = document.querySelector('.picture button');
    const dialog = document.querySelector('dialog');
    const before = dialog.open;
    button.click();
    const image = dialog.querySelector('img');
    say([before, dialog.open, image.alt, image.width >= 864,
      button.getAttribute('aria-label')]);
    """,
  )
  assert found == [False, True, 'bars', True, 'Enlarge: bars']


def test_only_the_script_of_the_page_may_run(open_file, tmp_path):
  # the policy holds even where escaping would have failed
  evil = '<script>document.title = "owned";</script><img onerror="x" src="y">'
  text = page.render(one('text')).replace('<p>text</p>', evil)
  assert evil in text
  path = tmp_path / 'page.html'
  path.write_text(text, encoding='utf-8')
  assert open_file(path) == 'Title'
  # and it is the policy that held it
  allowed = re.sub(r"'sha256-[^']*'", "'unsafe-inline'", text, count=1)
  path.write_text(allowed, encoding='utf-8')
  assert open_file(path) == 'owned'
