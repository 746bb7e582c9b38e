"""Surfaces: a value over a plane as filled contours, with points marked."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prompt_subspace.report import figures

LEVELS = 14  # about how many shades
EDGE = [patheffects.withStroke(linewidth=2.5, foreground='white')]


@figures.styled
def contours(
  x: Sequence[float],
  y: Sequence[float],
  values: Float[np.ndarray, 'Y X'],
  marks: Mapping[str, tuple[float, float]],
  title: str,
  label: str,
  other: tuple[str, float, float] | None = None,
  axis_labels: tuple[str, str] = ('u', 'v'),
) -> Figure:
  """Filled contours of values on a grid.

  Between the points of the grid colours are interpolated.

  Args:
    x: coordinates of the columns, rising; 2 or more.
    y: coordinates of the lines, rising; 2 or more.
    values: NaN where there is none; there it is grey.
    marks: name -> point.
    title: above the picture.
    label: of the values, with the unit.
    other: a second scale of the same colours: its label, and the values at
      which it is 0 and 100.
    axis_labels: of x and y.

  Raises:
    ValueError: values of another shape, or no number among them.
  """
  values = np.asarray(values, np.float64)
  if values.shape != (len(y), len(x)) or min(values.shape) < 2:
    raise ValueError(
      f'values: expected the shape {(len(y), len(x))} of {len(y)} lines and '
      f'{len(x)} columns, two or more of each, found {values.shape}.'
    )
  if not np.isfinite(values).any():
    raise ValueError('values: expected a number among them, found none.')
  figure = figures.blank(title, 5.6, width=7.0)
  axes = figure.subplots()
  axes.set_facecolor(figures.EMPTY)
  shown = np.ma.masked_invalid(values)
  # a plane has one level, and needs two
  low, high = float(shown.min()), float(shown.max())
  if high - low < 1e-9 * max(1.0, abs(high)):
    low, high = low - 0.5, high + 0.5
  levels = MaxNLocator(LEVELS).tick_values(low, high)
  drawn = axes.contourf(x, y, shown, levels, cmap='viridis')
  axes.contour(x, y, shown, levels[1:-1], colors='white', linewidths=0.3)
  bar = figure.colorbar(drawn, ax=axes, label=label, pad=0.02)
  bar.outline.set_visible(False)
  if other:
    _second_scale(bar, *other)
  _draw_marks(axes, marks)
  axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
  axes.set_aspect('equal')
  axes.grid(False)
  return figure


def _second_scale(bar: Colorbar, label: str, zero: float, whole: float) -> None:
  """Ticks on the left of the colours, at which the other scale is round."""
  unit = (whole - zero) / 100
  scale = bar.ax.secondary_yaxis(
    'left',
    functions=(lambda v: (v - zero) / unit, lambda v: v * unit + zero),
  )
  scale.set_ylabel(label)


def _draw_marks(axes: Axes, marks: Mapping[str, tuple[float, float]]) -> None:
  """Points with their names, which lead away from their middle."""
  if not marks:
    return
  middle = np.mean(list(marks.values()), axis=0)
  for name, point in marks.items():
    away = np.asarray(point) - middle
    length = np.linalg.norm(away)
    # a point in the middle has its name above
    right, up = away / length if length > 1e-9 else (0.0, 1.0)
    axes.plot(
      *point,
      'o',
      color=figures.INK,
      ms=6,
      mec='white',
      mew=1.2,
      clip_on=False,
      zorder=3,
    )
    text = axes.annotate(
      name,
      point,
      xytext=(8 * right, 8 * up),
      textcoords='offset points',
      ha='left' if right > 0.3 else 'right' if right < -0.3 else 'center',
      va='bottom' if up > 0.3 else 'top' if up < -0.3 else 'center',
      weight='bold',
    )
    text.set_path_effects(EDGE)
