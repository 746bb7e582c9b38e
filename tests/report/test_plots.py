"""Plots: what is drawn is what was given, and gaps are seen as such."""

import math

import matplotlib
import numpy as np
import pytest
from scipy import stats

from prompt_subspace.report import figures, files, plots

NAN = math.nan

pytestmark = pytest.mark.usefixtures('nothing_leaks')


def labels(ticks):
  return [tick.get_text() for tick in ticks]


def legend(found):
  return [t.get_text() for t in found.get_legend().get_texts()]


# scatters


def test_points_line_and_correlation_of_a_known_case():
  # r by hand: sxy = 8, sxx = 10, syy = 10
  x, y = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
  figure = plots.scatters({'task': (x, y)}, 'similarity', 'gain (%)', 'Title')
  (axes,) = figure.axes
  points = next(k for k in axes.lines if k.get_marker() == 'o')
  assert points.get_xydata().tolist() == list(map(list, zip(x, y, strict=True)))
  p = 2 * stats.t.sf(0.8 * math.sqrt(3 / (1 - 0.8**2)), df=3)
  assert axes.get_title(loc='left') == f'task, n = 5\nr = 0.80, p = {p:.3f}'
  fit = next(k for k in axes.lines if k.get_color() == figures.COLOURS[3])
  slope, intercept = np.polyfit(x, y, 1)
  assert fit.get_xdata().tolist() == [1, 5]
  assert fit.get_ydata() == pytest.approx(
    [slope + intercept, 5 * slope + intercept]
  )
  assert figure.get_supxlabel() == 'similarity'
  assert figure.get_supylabel() == 'gain (%)'


def test_an_undefined_correlation_is_said_without_a_line():
  panels = {
    'none': ([], []),
    'two': ([1, 2, NAN, 4], [3, 4, 5, None]),
    'level': ([0.1, 0.2, 0.3], [0.1, 0.1, 0.1]),
    'rounding': ([1, 1 + 1e-15, 1], [1, 2, 3]),
    'falling': ([1, 2, 3, 4, NAN], [4, 3, 2, 1.5, 9]),
  }
  figure = plots.scatters(panels, 'x', 'y', 't')
  titles = [axes.get_title(loc='left') for axes in figure.axes]
  assert titles[:4] == [
    'none, n = 0\nr undefined: fewer than 3',
    'two, n = 2\nr undefined: fewer than 3',
    'level, n = 3\nr undefined: constant y',
    'rounding, n = 3\nr undefined: constant x',
  ]
  assert titles[4].startswith('falling, n = 4\nr = −0.99')
  fits = [
    sum(k.get_color() == figures.COLOURS[3] for k in axes.lines)
    for axes in figure.axes
  ]
  assert fits == [0, 0, 0, 0, 1]
  assert plots.encode(figure)


def test_the_lowest_panel_of_each_column_has_numbers_at_its_ticks():
  panels = {str(i): ([1, 2, 3], [1, 3, 2]) for i in range(6)}
  figure = plots.scatters(panels, 'x', 'y', 't')
  plots.encode(figure)
  numbered = [
    any(t.get_visible() and t.get_text() for t in axes.get_xticklabels())
    for axes in figure.axes
  ]
  assert numbered == [False, False, True, True, True, True]


def test_scatters_of_different_lengths_are_refused():
  with pytest.raises(ValueError, match='panels: a: expected 2 numbers as y'):
    plots.scatters({'a': ([1, 2], [1])}, 'x', 'y', 't')
  with pytest.raises(ValueError, match='at least one'):
    plots.scatters({}, 'x', 'y', 't')


# curves


def test_curves_have_means_bands_and_references():
  figure = plots.curves(
    {
      'one': ([1, 2, 4], [10, NAN, 14], [1, 1, 2]),
      'two': ([1, 2], [5, 6], None),
    },
    'k',
    'score (%)',
    'Title',
    reference={'scratch': 9.5},
  )
  (axes,) = figure.axes
  one, two, scratch = axes.lines
  np.testing.assert_array_equal(one.get_ydata(), [10, NAN, 14])
  assert one.get_xdata().tolist() == [1, 2, 4]
  assert two.get_ydata().tolist() == [5, 6]
  assert set(scratch.get_ydata()) == {9.5}
  (band,) = axes.collections
  corners = {
    tuple(v) for path in band.get_paths() for v in path.vertices.tolist()
  }
  assert {(1, 9), (1, 11), (4, 12), (4, 16)} <= corners
  assert not any(x == 2 for x, _ in corners)
  assert legend(axes) == ['one', 'two', 'scratch']
  assert (axes.get_xlabel(), axes.get_ylabel()) == ('k', 'score (%)')


def test_sizes_on_a_logarithmic_axis_are_short():
  figure = plots.curves(
    {'a': ([1e8, 1e9, 1e10], [1, 2, 3], None)}, 'x', 'y', 't', log_x=True
  )
  plots.encode(figure)
  (axes,) = figure.axes
  assert axes.get_xscale() == 'log'
  assert {'100M', '1B', '10B'} <= set(labels(axes.get_xticklabels()))


def test_less_than_a_decade_of_x_has_plain_numbers():
  figure = plots.curves(
    {'a': ([4, 8, 16], [1, 2, 3], None)}, 'x', 'y', 't', log_x=True
  )
  (axes,) = figure.axes
  figure.canvas.draw()
  found = labels(axes.get_xticklabels(minor=True))
  assert {'4', '6', '8'} <= set(found)
  assert not any('$' in text for text in found)


def test_a_logarithmic_y_axis_has_plain_numbers_and_upright_lines_a_name():
  figure = plots.curves(
    {'a': ([1, 2, 3], [2e-3, 0.5, 300], None)},
    'x',
    'y',
    't',
    log_y=True,
    upright={'here': 2.5},
  )
  plots.encode(figure)
  (axes,) = figure.axes
  assert axes.get_yscale() == 'log'
  assert {'0.01', '100'} <= set(labels(axes.get_yticklabels()))
  line = next(k for k in axes.lines if k.get_label() == 'here')
  assert set(line.get_xdata()) == {2.5}
  assert legend(axes) == ['a', 'here']
  # less than a decade
  figure = plots.curves(
    {'a': ([1, 2], [2.1, 3.2], None)}, 'x', 'y', 't', log_y=True
  )
  plots.encode(figure)
  (axes,) = figure.axes
  assert '3' in labels(axes.get_yticklabels(which='minor'))


def test_more_lines_than_colours_differ_in_their_dashes():
  lines = {str(i): ([0, 1], [i, i], None) for i in range(25)}
  (axes,) = plots.curves(lines, 'x', 'y', 't').axes
  looks = {(k.get_color(), k.get_linestyle()) for k in axes.lines}
  assert len(looks) == 25


def test_lines_may_leave_colours_to_others():
  (axes,) = plots.curves(
    {'a': ([1, 2], [1, 2], [1, 1])}, 'x', 'y', 't', skip=1
  ).axes
  assert axes.lines[0].get_color() == figures.COLOURS[1]


def test_curves_of_different_lengths_are_refused():
  with pytest.raises(ValueError, match='lines: a: expected 2 numbers as mean'):
    plots.curves({'a': ([1, 2], [1], None)}, 'x', 'y', 't')
  with pytest.raises(ValueError, match='2 numbers as deviation'):
    plots.curves({'a': ([1, 2], [1, 2], [1])}, 'x', 'y', 't')
  with pytest.raises(ValueError, match='at least one'):
    plots.curves({}, 'x', 'y', 't')


# bars


def test_bars_have_heights_errors_and_baselines():
  figure = plots.bars(
    ['a', 'b'],
    {'one': ([3, -4], [0.5, NAN]), 'two': ([1, NAN], None)},
    'gain',
    'Title',
    baseline=[2, 2.5],
    baseline_label='majority',
  )
  (axes,) = figure.axes
  one, two = (c for c in axes.containers if hasattr(c, 'patches'))
  assert [bar.get_height() for bar in one] == [3, -4]
  assert two[0].get_height() == 1 and math.isnan(two[1].get_height())
  # side by side, and around the place of their group
  ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in (*one, *two)]
  assert ends[0][1] < ends[2][0] and ends[0][0] + ends[2][1] == pytest.approx(0)
  assert ends[1][0] + ends[3][1] == pytest.approx(2)
  stems = one.errorbar.lines[2][0].get_segments()
  assert stems[0][:, 1].tolist() == [2.5, 3.5]
  (cross,) = (k for k in axes.lines if k.get_label() == 'no value')
  assert cross.get_xdata() == pytest.approx([sum(ends[3]) / 2])
  levels = next(c for c in axes.collections if c.get_label() == 'majority')
  assert [s[0, 1] for s in levels.get_segments()] == [2, 2.5]
  assert legend(axes) == ['one', 'two', 'no value', 'majority']
  assert labels(axes.get_xticklabels()) == ['a', 'b']
  assert plots.encode(figure)


def test_error_bars_may_be_longer_on_one_side():
  figure = plots.bars(['a', 'b'], {'s': ([1, 5], [[0.5, 1], [2, 3]])}, 'y', 't')
  (axes,) = figure.axes
  (errors,) = next(c for c in axes.containers if len(c) == 3)[2]
  ends = [part[:, 1].tolist() for part in errors.get_segments()]
  assert ends == [[0.5, 3], [4, 8]]


def test_bars_beyond_the_limits_are_cut_and_say_their_number():
  figure = plots.bars(
    ['a', 'b', 'c'],
    {'s': ([-150, 500, 50], [10, 200, 10])},
    'y',
    't',
    limits=(-100, 100),
    skip=2,
  )
  plots.encode(figure)
  (axes,) = figure.axes
  assert axes.get_ylim() == (-100, 100)
  assert [(t.get_text(), t.xy) for t in axes.texts] == [
    ('−150', (0, -100)),
    ('500', (1, 100)),
  ]
  (errors,) = next(c for c in axes.containers if len(c) == 3)[2]
  ends = [part[:, 1].tolist() for part in errors.get_segments() if len(part)]
  assert ends == [[40, 60]]
  colour = matplotlib.colors.to_hex(axes.patches[0].get_facecolor())
  assert colour == figures.COLOURS[2]


def test_limits_do_not_widen_the_axis():
  (axes,) = plots.bars(
    ['a'], {'s': ([5], None)}, 'y', 't', limits=(-100, 100)
  ).axes
  assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] < 6
  assert not axes.texts


def test_one_baseline_holds_for_all_groups():
  figure = plots.bars(list('ab'), {'s': ([1, 2], None)}, 'y', 't', baseline=7)
  levels = next(
    c for c in figure.axes[0].collections if c.get_label() == 'baseline'
  )
  assert [s[0, 1] for s in levels.get_segments()] == [7, 7]


@pytest.mark.parametrize(
  ('series', 'baseline', 'said'),
  [
    ({'s': ([1], None)}, None, 'series: s: expected 2 numbers as means'),
    ({'s': ([1, 2], [1])}, None, '2 numbers as deviations'),
    ({'s': ([1, 2], [[1], [1]])}, None, '2 numbers as deviations'),
    ({'s': ([1, 2], None)}, [1, 2, 3], 'baseline: expected 2'),
    ({}, None, 'at least one of each, found 2 and 0'),
  ],
)
def test_bars_that_do_not_fit_are_refused(series, baseline, said):
  with pytest.raises(ValueError, match=said):
    plots.bars(['a', 'b'], series, 'y', 't', baseline)


# names, settings, files


def draw():
  return plots.bars(
    ['a$b$', 'c_d^2'], {'$x$': ([1, 2], [0.1, 0.2])}, 'y', '$t$'
  )


def test_names_are_texts_not_formulas():
  # an SVG keeps each text in a comment beside its outline
  drawn = plots.encode(draw(), 'svg').decode()
  for name in ('a$b$', 'c_d^2', '$x$', '$t$'):
    assert f'<!-- {name} -->' in drawn


@pytest.mark.parametrize('form', ['png', 'svg'])
def test_equal_values_give_equal_bytes_whatever_the_settings(form):
  first = plots.encode(draw(), form)
  with matplotlib.rc_context({'font.size': 20, 'axes.facecolor': 'red'}):
    assert plots.encode(draw(), form) == first


def test_pictures_are_written_whole_and_figures_emptied(tmp_path):
  figure, path = draw(), tmp_path / 'new' / 'bars.png'
  expected = plots.encode(figure)
  plots.save(figure, path)
  assert path.read_bytes() == expected
  assert figure.axes == []
  width, height = (int.from_bytes(expected[i : i + 4]) for i in (16, 20))
  assert width == 1800 and height > 500
  plots.save(draw(), path.with_suffix('.svg'))
  assert path.with_suffix('.svg').read_bytes().startswith(b'<?xml')
  assert sorted(p.name for p in path.parent.iterdir()) == [
    'bars.png',
    'bars.svg',
  ]


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
  path = tmp_path / 'a.png'
  path.write_bytes(b'old')

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(files.os, 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    plots.save(draw(), path)
  assert [p.name for p in tmp_path.iterdir()] == ['a.png']
  assert path.read_bytes() == b'old'


def test_other_kinds_of_files_are_refused(tmp_path):
  with pytest.raises(ValueError, match="found 'a.jpg'"):
    plots.save(draw(), tmp_path / 'a.jpg')
  with pytest.raises(ValueError, match="found 'pdf'"):
    plots.encode(draw(), 'pdf')
  assert not list(tmp_path.iterdir())
