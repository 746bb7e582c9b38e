"""Surfaces of a page: cells are points, and carry their values."""

import json
import math

import numpy as np
import pytest

from prompt_subspace.report import page, page_surface
from prompt_subspace.report.page import Page, Section
from prompt_subspace.report.page_surface import SHADES, Surface
from tests.report.test_page import EVIL, Tree

X, Y = (-0.4, 0.0, 0.4), (0.0, 1.0)
VALUES = np.array([[0.0, 1.0, math.nan], [3.0, 4.0, 2.0]])
MARKS = {'first': (0.0, 0.0), 'second': (0.4, 1.0)}


def tree_of(surface):
  return Tree(page.render(Page('T', '', [], [Section('S', '', [surface])])))


def data_of(tree):
  ((_, attributes, _),) = tree.all('figure', 'surface')
  return json.loads(attributes['data-surface'])


def test_a_cell_is_a_point_from_the_lowest_left():
  tree = tree_of(Surface('caption', X, Y, {'share': VALUES}, MARKS))
  cells = [a for _, a, _ in tree.all('rect', 'cell')]
  assert len(cells) == 6
  place = [(float(c['x']), float(c['y'])) for c in cells]
  assert place[0][1] == place[1][1] > place[3][1], 'higher y is higher up'
  assert place[0][0] == place[3][0] < place[1][0] < place[2][0]
  fills = [c['fill'] for c in cells]
  assert fills[0] == SHADES[0] and fills[4] == SHADES[-1]
  assert fills[2] == 'none'
  assert fills[5] == SHADES[round(63 * 2 / 4)]


def test_values_and_coordinates_are_carried_as_texts():
  views = {'share, %': VALUES, 'score': 10 * VALUES}
  tree = tree_of(Surface('caption', X, Y, views, MARKS, digits=2))
  data = data_of(tree)
  assert data['x'] == ['−0.4', '0', '0.4'] and data['y'] == ['0', '1']
  share, score = data['views']
  assert share['name'] == 'share, %'
  assert share['texts'] == ['0.00', '1.00', '–', '3.00', '4.00', '2.00']
  assert score['texts'][3:] == ['30.00', '40.00', '20.00']
  assert score['ends'] == ['0.00', '40.00']
  assert share['shades'] == [0, 16, None, 47, 63, 32] == score['shades']
  assert (tree.texts('figcaption'), len(tree.all('svg'))) == (['caption'], 1)


def test_marks_lie_in_the_middle_of_their_cells():
  tree = tree_of(Surface('caption', X, Y, {'share': VALUES}, MARKS))
  cells = [a for _, a, _ in tree.all('rect', 'cell')]
  outline = tree.all('rect', 'at')[0][1]
  width, height = float(outline['width']), float(outline['height'])
  for (_, circle, _), i in zip(tree.all('circle'), (1, 5), strict=True):
    x, y = float(cells[i]['x']), float(cells[i]['y'])
    assert float(circle['cx']) == pytest.approx(x + width / 2, abs=0.1)
    assert float(circle['cy']) == pytest.approx(y + height / 2, abs=0.1)
  assert 'second (0.4, 1)' in tree.texts('title')


def test_a_mark_off_the_grid_is_at_its_edge():
  marks = {'far': (9.0, -9.0)}
  tree = tree_of(Surface('c', X, Y, {'share': VALUES}, marks))
  ((_, circle, _),) = tree.all('circle')
  edge = page_surface.LEFT + page_surface.SIDE
  assert float(circle['cx']) == edge
  assert float(circle['cy']) == page_surface.TOP + page_surface.SIDE
  assert 'far (9, −9)' in tree.texts('title'), 'where it is, is said'


def test_texts_are_escaped_and_no_values_are_gaps():
  nothing = np.full((2, 3), math.nan)
  surface = Surface(EVIL, X, Y, {EVIL: nothing}, {EVIL: (0, 0)}, (EVIL, EVIL))
  tree = tree_of(surface)
  assert len(tree.all('script')) == 1
  (view,) = data_of(tree)['views']
  assert view['name'] == EVIL and view['ends'] == ['–', '–']
  assert {c[1]['fill'] for c in tree.all('rect', 'cell')} == {'none'}
  assert tree.texts('figcaption') == [EVIL]


def test_other_shapes_are_refused():
  for views in ({}, {'a': VALUES, 'b': VALUES.T}):
    with pytest.raises(ValueError, match=r"'c'.*shape \(2, 3\)"):
      page_surface.render(Surface('c', X, Y, views, {}))
  with pytest.raises(ValueError, match='two or more of each'):
    page_surface.render(Surface('c', X, [0.0], {'a': VALUES[:1]}, {}))
