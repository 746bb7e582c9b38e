"""A surface of a page: values over a plane, to be looked at point by point.

A cell of a drawing is one point that was evaluated, and nothing between them is
made up. With the script of the page, pointer and arrow keys tell the values of
a cell, and a list chooses which of them the colours show; without it, the first
is seen.
"""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import to_hex

from prompt_subspace.report.page_table import MISSING

SHADES = [to_hex(c) for c in colormaps['viridis'](np.linspace(0, 1, 64))]
# in units of the drawing, which grows and shrinks with the page
SIDE, LEFT, TOP, BELOW, RIGHT = 420.0, 52.0, 12.0, 48.0, 96.0


class Surface(NamedTuple):
  """Values over a grid of points.

  Attributes:
    caption: what it shows, with the unit.
    x: coordinates of the columns, rising, evenly.
    y: coordinates of the lines, rising, evenly.
    views: name -> values [Y, X], NaN where there is none; one or more, of
      which the first is shown at the start.
    marks: name -> point.
    axes: names of x and y.
    digits: after the point, of values.
  """

  caption: str
  x: Sequence[float]
  y: Sequence[float]
  views: Mapping[str, Float[np.ndarray, 'Y X']]
  marks: Mapping[str, tuple[float, float]]
  axes: tuple[str, str] = ('u', 'v')
  digits: int = 1


def render(surface: Surface) -> str:
  """The surface as an HTML figure.

  Raises:
    ValueError: no values, or values of another shape than the grid.
  """
  shape = (len(surface.y), len(surface.x))
  views = {n: np.asarray(v, np.float64) for n, v in surface.views.items()}
  wrong = {n: v.shape for n, v in views.items() if v.shape != shape}
  if not views or wrong or min(shape) < 2:
    raise ValueError(
      f'surface {surface.caption!r}: expected values of the shape {shape} of '
      f'its lines and columns, two or more of each, found '
      f'{wrong or ("none" if not views else "these")}.'
    )
  told = {name: _view(values, surface.digits) for name, values in views.items()}
  first = next(iter(told.values()))
  data = {
    'axes': list(surface.axes),
    'x': [_short(v) for v in surface.x],
    'y': [_short(v) for v in surface.y],
    'views': [{'name': n, **view} for n, view in told.items()],
    'shades': SHADES,
    'missing': MISSING,
  }
  caption = escape(surface.caption)
  width, height = LEFT + SIDE + RIGHT, TOP + SIDE + BELOW
  drawing = '\n'.join(
    [
      _cells(shape, first['shades']),
      '<rect class="at" visibility="hidden"'
      f' width="{SIDE / shape[1]:.2f}" height="{SIDE / shape[0]:.2f}"/>',
      *_ticks(surface),
      *(_mark(surface, name, point) for name, point in surface.marks.items()),
      _bar(first),
    ]
  )
  return (
    f'<figure class="surface" data-surface="{escape(json.dumps(data))}">\n'
    f'<figcaption>{caption}</figcaption>\n'
    f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
    f'aria-label="{caption}">\n{drawing}\n</svg>\n</figure>'
  )


def _view(values: np.ndarray, digits: int) -> dict:
  """Texts and shades of the values, line by line, and the range's ends."""
  known = values[np.isfinite(values)]
  low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
  reach = (high - low) or 1.0
  shades = [
    round((len(SHADES) - 1) * (v - low) / reach) if math.isfinite(v) else None
    for v in values.flat
  ]
  texts = [_text(v, digits) for v in values.flat]
  ends = [_text(v, digits) if known.size else MISSING for v in (low, high)]
  return {'texts': texts, 'shades': shades, 'ends': ends}


def _text(value: float, digits: int) -> str:
  if not math.isfinite(value):
    return MISSING
  return f'{value:z.{digits}f}'.replace('-', '−')


def _short(value: float) -> str:
  # 0.1 + 0.2 is 0.3
  return f'{round(value, 6) + 0.0:g}'.replace('-', '−')


def _cells(shape: tuple[int, int], shades: Sequence[int | None]) -> str:
  """A rectangle for each point, in the order of the values."""
  down, across = SIDE / shape[0], SIDE / shape[1]
  out = []
  for i, shade in enumerate(shades):
    line, column = divmod(i, shape[1])
    fill = 'none' if shade is None else SHADES[shade]
    # a little larger, so that no ground shines through
    out.append(
      f'<rect class="cell" x="{LEFT + column * across:.2f}" '
      f'y="{TOP + SIDE - (line + 1) * down:.2f}" width="{across + 0.3:.2f}" '
      f'height="{down + 0.3:.2f}" fill="{fill}"/>'
    )
  return ''.join(out)


def _place(surface: Surface, point: Sequence[float]) -> tuple[float, float]:
  """Where a point is in the drawing: cells have it in their middle."""
  out = []
  for axis, value in zip((surface.x, surface.y), point, strict=True):
    step = (axis[-1] - axis[0]) / (len(axis) - 1)
    out.append((value - axis[0] + step / 2) / (step * len(axis)))
  return LEFT + SIDE * out[0], TOP + SIDE * (1 - out[1])


def _ticks(surface: Surface) -> list[str]:
  """Numbers at both axes, and the names of these."""
  out = []
  x, y = surface.x, surface.y
  for value in _some(x):
    at, _ = _place(surface, (value, y[0]))
    out.append(_label(at, TOP + SIDE + 18, _short(value)))
  for value in _some(y):
    _, at = _place(surface, (x[0], value))
    out.append(_label(LEFT - 8, at + 4, _short(value), 'end'))
  middle = LEFT + SIDE / 2
  out.append(_label(middle, TOP + SIDE + 40, surface.axes[0]))
  at = TOP + SIDE / 2
  turned = f' transform="rotate(-90 14 {at:g})"'
  return [*out, _label(14, at, surface.axes[1], more=turned)]


def _some(axis: Sequence[float]) -> list[float]:
  """Some five of the points of an axis, with both ends where that is even."""
  step = max(1, round((len(axis) - 1) / 4))
  return list(axis[::step])


def _label(
  x: float, y: float, text: str, anchor: str = 'middle', more: str = ''
) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>'
    f'{escape(text)}</text>'
  )


def _mark(surface: Surface, name: str, point: tuple[float, float]) -> str:
  x, y = _place(surface, point)
  # one that is off the grid is at its edge, as far as the drawing can tell
  x = min(max(x, LEFT), LEFT + SIDE)
  y = min(max(y, TOP), TOP + SIDE)
  at = escape(f'{name} ({_short(point[0])}, {_short(point[1])})')
  return (
    f'<g class="mark"><title>{at}</title>'
    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    f'{_label(x, y - 8, name)}</g>'
  )


def _bar(view: dict) -> str:
  """The colours, with the lowest and the highest value."""
  x, step = LEFT + SIDE + 16, SIDE / len(SHADES)
  parts = ''.join(
    f'<rect x="{x:g}" y="{TOP + SIDE - (i + 1) * step:.2f}" width="14" '
    f'height="{step + 0.3:.2f}" fill="{shade}"/>'
    for i, shade in enumerate(SHADES)
  )
  low, high = (escape(end) for end in view['ends'])
  return (
    f'{parts}<text class="low" x="{x + 20:g}" y="{TOP + SIDE:g}">{low}</text>'
    f'<text class="high" x="{x + 20:g}" y="{TOP + 10:g}">{high}</text>'
  )
