"""Plots: points, curves and bars; with `heatmaps`, all pictures of a report.

Each function returns a Figure of its own; `save` writes it.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import offset_copy
from scipy import stats

from prompt_subspace.report import figures
from prompt_subspace.report.figures import COLOURS, FAINT, INK, encode, save
from prompt_subspace.report.heatmaps import clustered, heatmap

__all__ = [
  'bars',
  'clustered',
  'curves',
  'encode',
  'heatmap',
  'save',
  'scatters',
]

Numbers = Sequence[float | None] | Float[np.ndarray, ' X']

PANELS = 4  # side by side
DASHES = ('-', '--', ':', '-.')
MARKERS = 'osD^vP'


@figures.styled
def scatters(
  panels: Mapping[str, tuple[Numbers, Numbers]],
  xlabel: str,
  ylabel: str,
  title: str,
) -> Figure:
  """One panel of points per target, with regression line and correlation.

  The title of a panel has Pearson's r, the two-sided p of r = 0, and the
  number of points n. They are undefined, which the title then says, for fewer
  than 3 points and where x or y is constant.

  Args:
    panels: target -> (x, y), of one length. Pairs that lack x or y are left
      out.
    xlabel: of all panels, which share the axis.
    ylabel: of all panels; each has its own range.
    title: above the picture.

  Raises:
    ValueError: no panels, or x and y of different lengths.
  """
  if not panels:
    raise ValueError('panels: expected at least one, found none.')
  across = min(PANELS, len(panels))
  down = math.ceil(len(panels) / across)
  figure = figures.blank(
    title, 0.8 + 2.1 * down, width=figures.WIDTH if across > 1 else 5.0
  )
  grid = figure.subplots(down, across, sharex=True, squeeze=False)
  for axes, (target, (x, y)) in zip(grid.flat, panels.items(), strict=False):
    _panel(axes, target, *_finite_pairs(target, x, y))
  for axes in grid.flat[len(panels) :]:
    # the one above is the lowest of its column, and needs the ticks' numbers
    axes.remove()
  for axes in grid.flat[max(0, len(panels) - across) : len(panels)]:
    axes.tick_params(labelbottom=True)
  figure.supxlabel(xlabel, size=10)
  figure.supylabel(ylabel, size=10)
  return figure


@figures.styled
def curves(
  lines: Mapping[str, tuple[Numbers, Numbers, Numbers | None]],
  xlabel: str,
  ylabel: str,
  title: str,
  reference: Mapping[str, float] | None = None,
  log_x: bool = False,
  log_y: bool = False,
  upright: Mapping[str, float] | None = None,
  skip: int = 0,
) -> Figure:
  """Lines of means, in bands of one deviation to each side.

  Args:
    lines: name -> (x, mean, deviation or None), of one length. A missing mean
      leaves a gap; where a deviation is missing, there is no band.
    xlabel: with the unit.
    ylabel: with the unit.
    title: above the picture.
    reference: name -> value of a level line, for what does not depend on x.
    log_x: x on a logarithmic axis, for sizes and learning rates.
    log_y: y on a logarithmic axis; what is not above zero is not drawn.
    upright: name -> x of an upright line.
    skip: colours at the start to leave out, so that a name has one colour in
      pictures with and without those before it.

  Raises:
    ValueError: no lines, or different lengths.
  """
  if not lines:
    raise ValueError('lines: expected at least one, found none.')
  figure = figures.blank(title, 4.6)
  axes = figure.subplots()
  for i, (name, (x, mean, deviation)) in enumerate(lines.items(), skip):
    x, mean = _numbers(x), _numbers(mean)
    _check_length(f'lines: {name}', len(x), mean=mean)
    axes.plot(
      x,
      mean,
      DASHES[i // len(COLOURS) % len(DASHES)],
      color=COLOURS[i % len(COLOURS)],
      marker=MARKERS[i % len(MARKERS)] if len(x) <= 30 else None,
      markersize=4,
      label=name,
    )
    if deviation is not None:
      deviation = _numbers(deviation)
      _check_length(f'lines: {name}', len(x), deviation=deviation)
      axes.fill_between(
        x,
        mean - deviation,
        mean + deviation,
        color=COLOURS[i % len(COLOURS)],
        alpha=0.15,
        linewidth=0,
      )
  for i, (name, value) in enumerate((reference or {}).items()):
    axes.axhline(
      value,
      color=INK,
      linewidth=1,
      linestyle=DASHES[1:][i % 3],
      label=name,
    )
  for name, x in (upright or {}).items():
    axes.axvline(x, color=FAINT, linewidth=1, linestyle=':', label=name)
  axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
  if log_x:
    axes.set_xscale('log')
    _plain_ticks(axes.xaxis, *axes.get_xlim())
  if log_y:
    axes.set_yscale('log')
    _plain_ticks(axes.yaxis, *axes.get_ylim())
  axes.grid(axis='y')
  axes.set(xlabel=xlabel, ylabel=ylabel)
  _legend(axes, axes.get_legend_handles_labels()[0])
  return figure


@figures.styled
def bars(
  groups: Sequence[str],
  series: Mapping[str, tuple[Numbers, Numbers | None]],
  ylabel: str,
  title: str,
  baseline: Numbers | float | None = None,
  baseline_label: str = 'baseline',
  limits: tuple[float, float] | None = None,
  skip: int = 0,
) -> Figure:
  """Bars from zero, side by side in groups, with error bars.

  Args:
    groups: names of the G groups, from the left.
    series: name -> (means [G], deviations [G] or None). A missing mean has no
      bar, but a cross in its place; a missing deviation has no error bar. Of
      an interval that is not even, [2, G]: how far it goes below and above.
    ylabel: with the unit.
    title: above the picture.
    baseline: a value for all groups, or one of each: a line across the bars.
    baseline_label: its name.
    limits: the least and the greatest y to show. A bar that goes beyond is cut
      there, without error bar, and has its number at the cut.
    skip: colours at the start to leave out, as in `curves`.

  Raises:
    ValueError: no groups or series, or different lengths.
  """
  if not groups or not series:
    raise ValueError(
      f'groups, series: expected at least one of each, found {len(groups)} '
      f'and {len(series)}.'
    )
  figure = figures.blank(title, 4.8)
  axes = figure.subplots()
  handles, gaps, cut = [], [], []
  low, high = limits or (-math.inf, math.inf)
  width, places = 0.82 / len(series), np.arange(len(groups))
  for i, (name, (means, deviations)) in enumerate(series.items()):
    means = _numbers(means)
    _check_length(f'series: {name}', len(groups), means=means)
    if deviations is not None:
      deviations = _numbers(deviations)
      for side in deviations if deviations.ndim == 2 else [deviations]:
        _check_length(f'series: {name}', len(groups), deviations=side)
    x = places + (i - (len(series) - 1) / 2) * width
    beyond = (means < low) | (means > high)
    cut.extend(zip(x[beyond], means[beyond], strict=True))
    if deviations is not None:
      deviations = np.where(beyond, math.nan, deviations)
    look = _bar_look(i + skip)
    drawn = axes.bar(x, means, 0.92 * width, yerr=deviations, **look)
    drawn.set_label(name)
    handles.append(drawn)
    gaps.extend(x[np.isnan(means)])
  if gaps:
    handles.append(_draw_gaps(axes, gaps))
  if baseline is not None:
    levels = _numbers(baseline)
    levels = levels if levels.shape else np.full(len(groups), levels)
    _check_length('baseline', len(groups), values=levels)
    ends, look = (places - 0.45, places + 0.45), {'color': INK, 'ls': '--'}
    lines = axes.hlines(levels, *ends, **look, label=baseline_label)
    handles.append(lines)
  axes.axhline(0, color=FAINT, linewidth=0.8)
  axes.grid(axis='y')
  axes.set_ylabel(ylabel)
  axes.set_xticks(places, list(groups))
  axes.set_xlim(-0.55, len(groups) - 0.45)
  _cut(axes, low, high, cut)
  if max(map(len, groups)) * 0.08 > 6 / len(groups):
    turned = {'rotation': 40, 'ha': 'right', 'rotation_mode': 'anchor'}
    axes.set_xticks(places, list(groups), **turned)
  axes.tick_params(axis='x', length=0)
  _legend(axes, handles)
  return figure


def _plain_ticks(axis: Axis, low: float, high: float) -> None:
  """Plain numbers at the ticks of a logarithmic axis."""
  shown = FuncFormatter(lambda value, _: _short(value))
  axis.set_major_formatter(shown)
  # one decade or less may have one tick, or none
  axis.set_minor_formatter(shown if high < 10 * low else NullFormatter())


def _bar_look(i: int) -> dict:
  """Colour of the i-th series, with a pattern when colours are used up."""
  return {
    'color': COLOURS[i % len(COLOURS)],
    'hatch': (None, '///', '...', 'xxx')[i // len(COLOURS) % 4],
    'edgecolor': 'white',
    'linewidth': 0,
    'error_kw': {'ecolor': INK, 'elinewidth': 1, 'capsize': 2},
  }


def _cut(
  axes: Axes, low: float, high: float, bars: Sequence[tuple[float, float]]
) -> None:
  """Ends the axis at the limits, with the numbers of the bars beyond."""
  bottom, top = axes.get_ylim()
  axes.set_ylim(max(bottom, low), min(top, high))
  for x, value in bars:
    up = value > high
    axes.annotate(
      f'{value:.0f}'.replace('-', '−'),
      (x, high if up else low),
      xytext=(0, 2 if up else -2),
      textcoords='offset points',
      rotation=90,
      ha='center',
      va='bottom' if up else 'top',
      size=7,
    )


def _draw_gaps(axes: Axes, places: Sequence[float]) -> Line2D:
  """Crosses a little above the axis, whatever its scale."""
  raised = offset_copy(axes.transData, axes.figure, y=5, units='points')
  (drawn,) = axes.plot(
    places,
    np.zeros(len(places)),
    'x',
    color=FAINT,
    markersize=4,
    transform=raised,
    label='no value',
  )
  return drawn


def _legend(axes: Axes, handles: Sequence) -> None:
  axes.legend(
    handles=handles, loc='upper left', bbox_to_anchor=(1.01, 1), borderpad=0
  )


def _panel(axes: Axes, target: str, x: np.ndarray, y: np.ndarray) -> None:
  """Points, line and title of one target."""
  axes.plot(x, y, 'o', color=COLOURS[0], alpha=0.6, markersize=4, mew=0)
  axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
  if len(x) < 3:
    said = 'r undefined: fewer than 3'
  elif _constant(x) or _constant(y):
    said = f'r undefined: constant {"x" if _constant(x) else "y"}'
  else:
    r, p = stats.pearsonr(x, y)
    fit = stats.linregress(x, y)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, fit.intercept + fit.slope * ends, color=COLOURS[3])
    chance = 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'
    said = f'r = {r:.2f}, {chance}'.replace('-', '−')
  name = f'{target}, n = {len(x)}'
  # some 26 letters fit
  axes.set_title(f'{name}\n{said}', size=min(8.5, 8.5 * 26 / len(name)))


def _constant(values: np.ndarray) -> bool:
  """Whether values differ by rounding at most, so that r means nothing."""
  mean = values.mean()
  return bool(np.linalg.norm(values - mean) <= 1e-12 * abs(mean))


def _finite_pairs(
  target: str, x: Numbers, y: Numbers
) -> tuple[np.ndarray, np.ndarray]:
  x, y = _numbers(x), _numbers(y)
  _check_length(f'panels: {target}', len(x), y=y)
  kept = np.isfinite(x) & np.isfinite(y)
  return x[kept], y[kept]


def _numbers(values: Numbers) -> np.ndarray:
  """Float64, with NaN for None."""
  return np.asarray(values, np.float64)


def _check_length(where: str, count: int, **found: np.ndarray) -> None:
  for name, values in found.items():
    if values.shape != (count,):
      raise ValueError(
        f'{where}: expected {count} numbers as {name}, found the shape '
        f'{values.shape}.'
      )


def _short(x: float) -> str:
  """250000000 as 250M: what fits under a tick."""
  for size, letter in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if abs(x) >= size:
      return f'{x / size:g}{letter}'.replace('-', '−')
  return f'{x:g}'.replace('-', '−')
