"""Heatmaps: each number in its cell, clusters together, all of it readable."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from prompt_subspace.report import figures, plots

NAN = math.nan

pytestmark = pytest.mark.usefixtures('nothing_leaks')


def texts(axes):
  """(column, row) -> the number in the cell."""
  return {
    (int(t.get_position()[0]), int(t.get_position()[1])): t.get_text()
    for t in axes.texts
  }


def labels(ticks):
  return [tick.get_text() for tick in ticks]


# heatmap


def test_a_heatmap_has_each_number_in_its_cell():
  figure = plots.heatmap(
    [[1.26, -3.5, NAN], [-0.04, 12.0, 5.0]],
    ['first', 'second'],
    ['a', 'b', 'c'],
    'Title',
    'gain (%)',
    center=0,
    fmt='.1f',
  )
  axes, bar = figure.axes
  assert texts(axes) == {
    (0, 0): '1.3',
    (1, 0): '−3.5',
    (0, 1): '0.0',
    (1, 1): '12.0',
    (2, 1): '5.0',
  }
  assert labels(axes.get_yticklabels()) == ['first', 'second']
  assert labels(axes.get_xticklabels()) == ['a', 'b', 'c']
  assert axes.yaxis_inverted()
  assert figure.get_suptitle() == 'Title' and bar.get_ylabel() == 'gain (%)'


def test_a_missing_cell_lets_the_grey_through_and_is_explained():
  figure = plots.heatmap([[1, NAN]], ['r'], ['a', 'b'], 't', 'l')
  mesh = figure.axes[0].collections[0]
  assert mesh.get_array().mask.tolist() == [[False, True]]
  assert figure.axes[0].get_facecolor() == to_rgba(figures.EMPTY)
  assert labels(figure.legends[0].get_texts()) == ['no value']
  whole = plots.heatmap([[1, 2]], ['r'], ['a', 'b'], 't', 'l')
  assert not whole.legends


def test_a_heatmap_without_any_value_is_drawn():
  figure = plots.heatmap([[NAN, NAN]], ['r'], ['a', 'b'], 't', 'l', center=0)
  assert texts(figure.axes[0]) == {}
  assert plots.encode(figure)


def test_the_centre_has_no_colour_and_the_sides_differ():
  figure = plots.heatmap([[-10, 0, 40]], ['r'], list('abc'), 't', 'l', center=0)
  mesh = figure.axes[0].collections[0]
  low, middle, high = mesh.cmap(mesh.norm([-10, 0, 40]))[:, :3]
  assert min(middle) > 0.95
  assert low[0] > low[2] and high[2] > high[0]
  # as far from the centre, as strong: -10 is paler than 40
  assert min(low) > min(high)


def test_outliers_keep_their_number_but_not_the_scale():
  figure = plots.heatmap(
    [[-300, 5]], ['r'], ['a', 'b'], 't', 'l', center=0, limits=(-40, 40)
  )
  mesh = figure.axes[0].collections[0]
  assert mesh.get_clim() == (-40, 40)
  assert mesh.colorbar.extend == 'min'
  assert texts(figure.axes[0])[0, 0] == '−300'


def contrast(one, other):
  """WCAG 2's ratio of two colours, by its definition."""

  def luminance(colour):
    linear = [
      x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4
      for x in to_rgba(colour)[:3]
    ]
    return np.dot([0.2126, 0.7152, 0.0722], linear)

  dark, light = sorted((luminance(one), luminance(other)))
  return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('center', [None, 0.0])
def test_every_number_can_be_read_on_its_colour(center):
  values = np.linspace(-9, 9, 60).reshape(6, 10)
  names = [str(i) for i in range(10)]
  figure = plots.heatmap(values, names[:6], names, 't', 'l', center=center)
  axes = figure.axes[0]
  mesh = axes.collections[0]
  for text, value in zip(axes.texts, values.flat, strict=True):
    back = mesh.cmap(mesh.norm(value))
    assert contrast(text.get_color(), back) > 4.5


@pytest.mark.parametrize(
  ('values', 'options', 'said'),
  [
    ([[1, 2]], {}, r'expected the shape \(2, 2\).* found \(1, 2\)'),
    ([[1, 2], [3, math.inf]], {}, 'found infinity'),
    ([[1, 2], [3, 4]], {'limits': (1, 1)}, 'lower one first'),
  ],
)
def test_what_makes_no_heatmap_is_refused(values, options, said):
  with pytest.raises(ValueError, match=said):
    plots.heatmap(values, ['a', 'b'], ['c', 'd'], 't', 'l', **options)


# clustered


def blocks(count, groups, seed=0):
  """Similarities: 0.8 or so within every group-th name, else 0.1 or so."""
  random = np.random.default_rng(seed)
  member = np.arange(count) % groups
  noise = random.uniform(-0.05, 0.05, (count, count))
  found = np.where(member[:, None] == member, 0.8, 0.1) + noise + noise.T
  np.fill_diagonal(found, 1)
  return found, [f'{"abcdefgh"[m]}{i}' for i, m in enumerate(member)]


def test_clusters_stand_together_and_cells_move_with_their_names():
  similarity, names = blocks(12, 3)
  figure = plots.clustered(similarity, names, 'Title', label='cosine')
  tree, cells, bar = figure.axes
  order = labels(cells.get_yticklabels())
  assert order == labels(cells.get_xticklabels())
  assert sorted(order) == sorted(names)
  runs = [key for key, _ in itertools.groupby(order, key=lambda n: n[0])]
  assert len(runs) == 3
  drawn = cells.collections[0].get_array()
  for i, row in enumerate(order):
    for j, column in enumerate(order):
      expected = similarity[names.index(row), names.index(column)]
      assert drawn[i, j] == expected
      assert texts(cells)[j, i] == f'{expected:.2f}'
  assert bar.get_ylabel() == 'cosine'


def test_the_tree_is_average_linkage_beside_its_rows():
  # a and b at 0.1; c from them at (0.5 + 0.7) / 2
  similarity = [[1, 0.9, 0.5], [0.9, 1, 0.3], [0.5, 0.3, 1]]
  figure = plots.clustered(similarity, ['a', 'b', 'c'], 't')
  tree, cells, _ = figure.axes
  segments = [path.vertices for c in tree.collections for path in c.get_paths()]
  assert sorted(s[:, 0].max() for s in segments) == pytest.approx([0.1, 0.6])
  order = labels(cells.get_yticklabels())
  first = min(segments, key=lambda s: s[:, 0].max())
  # rows are 10 apart in the tree, from the top as in the cells
  rows = {order[int(y // 10)] for y in first[:, 1]}
  assert rows == {'a', 'b'}
  assert tree.get_ylim() == (30, 0) and cells.get_ylim() == (3, 0)


def test_the_diagonal_does_not_take_the_scale():
  similarity, names = blocks(6, 2)
  figure = plots.clustered(similarity, names, 't')
  mesh = figure.axes[1].collections[0]
  apart = similarity[~np.eye(6, dtype=bool)]
  assert mesh.get_clim() == pytest.approx((apart.min(), apart.max()))
  assert mesh.colorbar.extend == 'max'


def test_groups_are_a_strip_of_colours_in_the_order_of_the_rows():
  similarity, names = blocks(8, 2)
  groups = ['even' if i % 2 == 0 else 'odd' for i in range(8)]
  figure = plots.clustered(similarity, names, 't', groups)
  _, strip, cells, _ = figure.axes
  mesh = strip.collections[0]
  colours = [tuple(c) for c in mesh.cmap(mesh.norm(mesh.get_array()))[:, 0]]
  of_name = dict(zip(labels(cells.get_yticklabels()), colours, strict=True))
  known = {
    text.get_text(): patch.get_facecolor()
    for text, patch in zip(
      figure.legends[0].get_texts(),
      figure.legends[0].get_patches(),
      strict=True,
    )
  }
  assert of_name == {
    name: known[group] for name, group in zip(names, groups, strict=True)
  }


def test_equal_prompts_and_sixty_names_are_fine():
  assert plots.encode(plots.clustered(np.ones((3, 3)), list('abc'), 't'))
  similarity, names = blocks(60, 6)
  figure = plots.clustered(similarity, names, 't')
  cells = figure.axes[1]
  assert not cells.texts
  figure.draw_without_rendering()
  boxes = [t.get_window_extent() for t in cells.get_yticklabels()]
  boxes.sort(key=lambda box: box.y0)
  assert all(a.y1 <= b.y0 + 0.5 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (lambda s: s[:2], r'shape \(3, 3\)'),
    (lambda s: s + np.triu(np.ones((3, 3)), 1) * 1e-3, 'differ by 0.001'),
    (lambda s: s * np.where(np.eye(3), 1, 3), 'at most 1 .* found 1.5'),
    (lambda s: np.where(np.eye(3), NAN, s), 'NaN'),
  ],
)
def test_what_cannot_be_clustered_is_refused(change, said):
  similarity = np.full((3, 3), 0.5) + np.eye(3) / 2
  with pytest.raises(ValueError, match=said):
    plots.clustered(change(similarity), list('abc'), 't')


def test_one_name_or_wrong_groups_are_refused():
  with pytest.raises(ValueError, match='at least 2'):
    plots.clustered([[1.0]], ['a'], 't')
  with pytest.raises(ValueError, match='groups: .* found 1 with 1'):
    plots.clustered(np.eye(2), ['a', 'b'], 't', ['one'])
  many = [str(i) for i in range(11)]
  with pytest.raises(ValueError, match='at most 10 different'):
    plots.clustered(np.eye(11), many, 't', many)
