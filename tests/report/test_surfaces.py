"""Surfaces: contours of what was given, with marks and a second scale."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from prompt_subspace.report import figures, plots, surfaces

pytestmark = pytest.mark.usefixtures('nothing_leaks')

X, Y = [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0, 2.0]
SLOPE = np.add.outer(10 * np.array(Y), np.array(X))  # 10 y + x
MARKS = {'a': (0.0, 0.0), 'b': (1.0, 0.0), 'c': (0.5, 1.0)}


def test_marks_are_where_they_were_said_to_be_and_named():
  figure = surfaces.contours(X, Y, SLOPE, MARKS, 'Title', 'share, %')
  axes, bar = figure.axes
  points = [tuple(k.get_xydata()[0]) for k in axes.lines]
  assert points == list(MARKS.values())
  assert [(t.get_text(), tuple(t.xy)) for t in axes.texts] == list(
    MARKS.items()
  )
  # names lead away from the middle of the three
  assert [t.get_ha() for t in axes.texts] == ['right', 'left', 'center']
  assert bar.get_ylabel() == 'share, %'
  assert figure.get_suptitle() == 'Title'


def test_colours_are_of_the_values():
  figure = surfaces.contours(X, Y, SLOPE, {}, 't', 'v')
  filled = figure.axes[0].collections[0]
  low, high = filled.levels[0], filled.levels[-1]
  assert low <= -11 < low + 3 and high - 3 < 21 <= high
  # the picture is darkest where the values are lowest: viridis starts dark
  shade = [to_rgb(filled.cmap(filled.norm(v))) for v in (-11, 5, 21)]
  assert sum(shade[0]) < sum(shade[1]) < sum(shade[2])


def test_a_second_scale_has_its_own_zero_and_whole():
  figure = surfaces.contours(
    X, Y, SLOPE, MARKS, 't', 'v', other=('of the rest', 5.0, 15.0)
  )
  bar = figure.axes[1]
  (scale,) = bar.child_axes
  figure.canvas.draw()
  low, high = bar.get_ylim()
  # 0 at 5, and 100 at 15
  assert scale.get_ylim() == pytest.approx((10 * (low - 5), 10 * (high - 5)))
  assert scale.get_ylabel() == 'of the rest'


def test_gaps_are_grey_and_a_plane_is_drawn():
  values = SLOPE.copy()
  values[0, 0] = math.nan
  figure = surfaces.contours(X, Y, values, MARKS, 't', 'v')
  assert plots.encode(figure).startswith(b'\x89PNG')
  assert to_rgb(figure.axes[0].get_facecolor()) == to_rgb(figures.EMPTY)
  level = surfaces.contours(X, Y, np.full((4, 3), 50.0), {}, 't', 'v')
  filled = level.axes[0].collections[0]
  assert filled.levels[0] < 50 < filled.levels[-1]


def test_other_shapes_and_nothing_are_refused():
  with pytest.raises(ValueError, match=r'expected the shape \(4, 3\)'):
    surfaces.contours(X, Y, SLOPE.T, {}, 't', 'v')
  with pytest.raises(ValueError, match='two or more of each'):
    surfaces.contours([0.0], Y, SLOPE[:, :1], {}, 't', 'v')
  with pytest.raises(ValueError, match='expected a number among them'):
    surfaces.contours(X, Y, np.full((4, 3), math.nan), {}, 't', 'v')
